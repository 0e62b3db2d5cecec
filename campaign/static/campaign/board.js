// The live board: asks for its numbers every three seconds and draws them.
"use strict";
(() => {
  const box = document.querySelector("[data-board]");
  if (!box) return;
  let words = { offline: "…" };
  const find = (name) => document.querySelector(name);
  const put = (tag, text, cls) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (cls) made.className = cls;
    return made;
  };
  const charts = {};
  let dark = laisee.dark();

  function draw(name, place, config) {
    if (dark !== laisee.dark()) {
      dark = laisee.dark();
      for (const key of Object.keys(charts)) { charts[key].destroy(); delete charts[key]; }
    }
    if (charts[name] && charts[name].data.datasets.length === config.data.datasets.length) {
      charts[name].data = config.data;
      charts[name].update("none");
    } else {
      if (charts[name]) charts[name].destroy();
      charts[name] = new Chart(place, config);
    }
  }

  function tiles(list) {
    find("[data-tiles]").replaceChildren(...list.map((tile) => {
      const made = put("div", undefined, "ls-tile" + (tile.bad ? " is-bad" : ""));
      made.append(put("dt", tile.name), put("dd", tile.value), put("small", tile.note));
      return made;
    }));
  }

  function speed(data) {
    const colours = laisee.palette();
    const options = laisee.axes();
    options.scales.x.stacked = options.scales.y.stacked = true;
    options.scales.y.suggestedMax = 1;
    options.scales.y.ticks.precision = 0;
    options.scales.x.ticks.maxRotation = 0;
    draw("speed", find("[data-speed]"), {
      type: "bar",
      data: {
        labels: data.seconds,
        datasets: data.lines.map((line, n) => ({
          label: line.label, data: line.values, backgroundColor: colours[n % colours.length], barPercentage: 1, categoryPercentage: .9,
        })),
      },
      options,
    });
  }

  function burn(data, forecast) {
    const colours = laisee.palette();
    const label = (second) => new Date((second + data.offset_s) * 1000).toISOString().slice(5, 16).replace("T", " ");
    const line = data.points.map(([second, fen]) => ({ x: second, y: fen / 100 }));
    const last = data.points[data.points.length - 1];
    const ahead = [];
    if (data.per_minute > 0) {
      const until = Math.min(data.empty || data.ends, data.ends);
      const fen = Math.min(data.bound, last[1] + data.per_minute * (until - last[0]) / 60);
      ahead.push({ x: last[0], y: last[1] / 100 }, { x: until, y: fen / 100 });
    }
    const right = ahead.length ? ahead[1].x : last[0];
    const left = data.points[0][0];
    const options = laisee.axes();
    options.parsing = false;
    options.interaction = { mode: "nearest", intersect: false };
    options.scales.x = { ...options.scales.x, type: "linear", min: left, max: Math.max(right, left + 60) };
    options.scales.x.ticks = { ...options.scales.x.ticks, callback: label, maxTicksLimit: 4, maxRotation: 0 };
    options.scales.y.ticks.callback = (value) => "¥" + laisee.number(value);
    options.plugins.tooltip = { callbacks: { title: (items) => label(items[0].parsed.x), label: (item) => item.dataset.label + ": " + laisee.yuan(Math.round(item.parsed.y * 100)) } };
    const style = { borderWidth: 2, pointRadius: 0 };
    draw("burn", find("[data-burn]"), {
      type: "line",
      data: {
        datasets: [
          { label: words.claimed, data: line, borderColor: colours[0], backgroundColor: colours[0] + "22", fill: true, ...style },
          { label: words.forecast, data: ahead, borderColor: colours[0], borderDash: [5, 5], ...style },
          { label: words.bound, data: [{ x: left, y: data.bound / 100 }, { x: Math.max(right, left + 60), y: data.bound / 100 }], borderColor: colours[5], ...style, borderWidth: 1 },
        ],
      },
      options,
    });
    find("[data-forecast]").textContent = forecast;
  }

  function campaigns(list) {
    const body = find("[data-campaigns]");
    if (!list.length) {
      const row = put("tr"), cell = put("td", words.nothing, "is-empty");
      cell.colSpan = 6;
      row.append(cell);
      body.replaceChildren(row);
      return;
    }
    body.replaceChildren(...list.map((one) => {
      const row = put("tr"), name = put("td"), link = put("a", one.name, "ls-link");
      link.href = one.address;
      name.append(link, " ", put("span", one.slug, "ls-mono ls-muted"));
      const state = put("td"), burnt = put("td"), bar = put("div", undefined, "ls-bar"), part = put("i");
      state.append(put("span", one.state_label, "ls-tag is-" + one.state));
      part.style.width = one.percent + "%";
      bar.append(part);
      burnt.append(put("div", one.claimed + " / " + one.bound, "ls-num"), bar);
      const ends = put("td");
      ends.append(put("div", one.ends), put("span", one.left, one.soon ? "ls-tag is-paused" : "ls-muted"));
      row.append(name, state, burnt, put("td", one.portions, "is-num"), put("td", one.unsettled, "is-num"), ends);
      return row;
    }));
  }

  const stateWas = find("[data-state]") && find("[data-state]").dataset.state;
  laisee.every(3000, async () => {
    let now;
    try {
      now = await laisee.json(box.dataset.board, { headers: { "X-Background": "1" } });
    } catch (trouble) {
      find("[data-updated]").textContent = words.offline;
      return;
    }
    if (!now) return;
    words = now.words;
    if (now.state && stateWas && now.state !== stateWas) { location.reload(); return; }
    tiles(now.tiles);
    speed(now.speed);
    if (now.burn) burn(now.burn, now.forecast);
    if (now.percent !== undefined) find("[data-percent]").style.width = now.percent + "%";
    if (now.campaigns) campaigns(now.campaigns);
    find("[data-updated]").textContent = words.updated + " " + now.at;
  });
})();
