// The campaign form: packets that come and go, prize tables, and the preview that follows typing.
"use strict";
(() => {
  const form = document.getElementById("builder");
  const words = JSON.parse(document.getElementById("builder-words").textContent);
  const find = (name, root) => (root || form).querySelector(name);
  const findAll = (name, root) => [...(root || form).querySelectorAll(name)];
  const box = find("[data-packets]");
  const total = find("[name=packets-TOTAL_FORMS]");
  let shown = 0, draw = 0, last = null, chart = null;

  const livePackets = () => findAll("[data-packet]", box).filter((p) => !p.classList.contains("is-gone"));
  const part = (packet, name) => find(`[name$="-${name}"]`, packet);
  const fill = (text, values) => text.replace(/%\((\w+)\)s/g, (_, name) => values[name]);
  const element = (tag, text, cls) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (cls) made.className = cls;
    return made;
  };

  // --- one packet ---
  function dress(packet) {
    const strategy = part(packet, "strategy"), targeted = part(packet, "targeted");
    const apply = () => {
      findAll("[data-only]", packet).forEach((e) => { e.hidden = e.dataset.only !== strategy.value; });
      findAll("[data-not]", packet).forEach((e) => { e.hidden = e.dataset.not.split(" ").includes(strategy.value); });
      findAll("[data-if]", packet).forEach((e) => { e.hidden = !targeted.checked; });
    };
    strategy.addEventListener("change", apply);
    targeted.addEventListener("change", apply);
    apply();
    tiers(packet);
    if (part(packet, "DELETE").checked) packet.classList.add("is-gone");
    find("[data-remove]", packet).addEventListener("click", () => {
      part(packet, "DELETE").checked = true;
      packet.classList.add("is-gone");
      number();
      later();
    });
  }

  // The prize table is a text of lines; with a script it is edited as rows.
  function tiers(packet) {
    const text = part(packet, "tiers"), table = find("[data-tiers]", packet), body = find("tbody", table);
    const add = find("[data-add-tier]", packet);
    const save = () => {
      text.value = [...body.rows].map((row) => row.querySelectorAll("input")).filter((f) => f[0].value || f[1].value)
        .map((f) => `${f[0].value} x ${f[1].value}`).join("\n");
      later();
    };
    const put = (amount, quantity) => {
      const row = body.insertRow();
      for (const [value, label] of [[amount, words.prize], [quantity, words.quantity]]) {
        const field = document.createElement("input");
        field.className = text.className;
        field.value = value;
        field.inputMode = "decimal";
        field.setAttribute("aria-label", label);
        field.addEventListener("input", save);
        row.insertCell().append(field);
      }
      const gone = element("button", "✕", "ls-btn is-quiet");
      gone.type = "button";
      gone.setAttribute("aria-label", words.remove);
      gone.addEventListener("click", () => { row.remove(); save(); });
      row.insertCell().append(gone);
    };
    text.value.split("\n").filter((line) => line.trim()).forEach((line) => {
      const [amount, quantity] = line.split(/\s*[x×*]\s*/);
      put(amount.trim(), (quantity || "").trim());
    });
    if (!body.rows.length) put("", "");
    text.hidden = true;
    text.style.display = "none";
    table.hidden = add.hidden = false;
    add.addEventListener("click", () => put("", ""));
  }

  function number() {
    livePackets().forEach((packet, n) => { find("[data-number]", packet).textContent = n + 1; });
    shown = Math.max(0, Math.min(shown, livePackets().length - 1));
  }

  find("[data-add-packet]").addEventListener("click", () => {
    const html = find("[data-empty]").innerHTML.replaceAll("__prefix__", total.value);
    total.value = Number(total.value) + 1;
    box.insertAdjacentHTML("beforeend", html);
    dress(box.lastElementChild);
    number();
    shown = livePackets().length - 1;
    part(box.lastElementChild, "total").focus();
    later();
  });

  // --- the preview ---
  let timer = 0, running = false, again = false;
  function later() {
    clearTimeout(timer);
    timer = setTimeout(ask, 250);
  }
  async function ask() {
    if (running) { again = true; return; }
    running = true;
    try {
      const body = new FormData(form);
      for (const [name, value] of [...body.entries()]) if (value instanceof File) body.delete(name);
      body.set("draw", draw);
      last = await laisee.json(form.dataset.preview, { method: "POST", body, headers: { "X-CSRFToken": laisee.token() } });
      if (last) show();
    } catch (trouble) {
      find("[data-state]").textContent = words.offline;
    } finally {
      running = false;
      if (again) { again = false; later(); }
    }
  }

  const touched = new Set();
  function marks() {
    findAll("[data-field]").forEach((field) => {
      const name = field.dataset.field;
      if (!touched.has(name) && !touched.has("*")) return;
      const says = (last.errors[name] || []).join(" ");
      const place = find("[data-error]", field);
      if (place) place.textContent = says;
      field.classList.toggle("has-error", Boolean(says));
    });
    livePackets().forEach((packet) => {
      const prefix = part(packet, "total").name.replace(/-total$/, "");
      if (touched.size) find("[data-error-all]", packet).textContent = (last.errors[prefix + "-__all__"] || []).join(" ");
    });
  }

  function show() {
    marks();
    find("[data-state]").textContent = "";
    const money = last.budget;
    find("[data-budget-text]").textContent = money.text;
    find("[data-budget-words]").textContent = money.words;
    const bar = find("[data-budget-bar]");
    bar.style.width = Math.min(100, money.percent) + "%";
    bar.style.background = money.percent > 100 ? "#b91c1c" : "";
    findAll("[data-zone]").forEach((e) => { e.textContent = last.zone; });
    tabs();
    const packet = last.packets[shown];
    const good = packet && packet.ok;
    find("[data-preview-box]").hidden = !good;
    find("[data-preview-empty]").hidden = good;
    if (good) { histogram(packet); numbers(packet); }
    phones(good ? packet : null);
  }

  function tabs() {
    const place = find("[data-tabs]");
    place.replaceChildren();
    if (last.packets.length < 2) return;
    last.packets.forEach((_, n) => {
      const tab = element("button", n + 1, n === shown ? "is-on" : "");
      tab.type = "button";
      tab.addEventListener("click", () => { shown = n; show(); });
      place.append(tab);
    });
  }

  function histogram(packet) {
    const data = {
      labels: packet.bins.map((bin) => bin.label),
      datasets: [{ data: packet.bins.map((bin) => bin.per_mille / 10), backgroundColor: laisee.palette()[0], borderRadius: 2, barPercentage: 1, categoryPercentage: .92 }],
    };
    if (chart) chart.destroy();
    const options = laisee.axes();
    options.plugins = { legend: { display: false }, tooltip: { callbacks: { label: (item) => item.parsed.y + " %" } } };
    options.scales.x.ticks.maxTicksLimit = 5;
    options.scales.x.ticks.maxRotation = 0;
    options.scales.y.ticks.callback = (value) => value + "%";
    options.scales.y.ticks.maxTicksLimit = 4;
    chart = new Chart(find("[data-histogram]"), { type: "bar", data, options });
  }

  function numbers(packet) {
    const list = find("[data-numbers]");
    list.replaceChildren();
    packet.numbers.forEach(([name, value]) => list.append(element("dt", name, "ls-muted"), element("dd", value)));
    const raised = find("[data-raised]");
    raised.hidden = !packet.raised;
    raised.textContent = packet.raised || "";
    const prizes = find("[data-prizes]");
    prizes.hidden = !packet.prizes.length;
    prizes.replaceChildren();
    packet.prizes.forEach((prize) => {
      const row = prizes.insertRow();
      prize.forEach((text) => { row.insertCell().textContent = text; row.lastChild.className = "is-num"; });
    });
    const sample = find("[data-sample]");
    sample.replaceChildren();
    packet.sample.forEach(([text, tier]) => sample.append(element("span", text, tier ? "is-prize" : "")));
    find("[data-basis]").textContent = packet.basis;
  }

  function phones(packet) {
    const names = { "zh-Hans": find("[name=name_zh]").value, en: find("[name=name_en]").value || find("[name=name_zh]").value };
    findAll("[data-phone]").forEach((phone) => {
      const lang = phone.dataset.phone, say = words.phone[lang];
      find("[data-name]", phone).textContent = names[lang] || say.name;
      const amount = find("[data-amount]", phone);
      amount.textContent = packet ? packet.sample[0][0] : "¥–";
      find("[data-left]", phone).textContent = packet ? fill(say.left, { count: laisee.number(packet.count), total: packet.total }) : "";
      const others = find("[data-others]", phone);
      others.replaceChildren();
      (packet ? packet.sample.slice(1, 5) : []).forEach(([text], n) => {
        const row = element("div", ["王***明", "l***y", "陈***", "b***b"][n]);
        row.append(element("b", text));
        others.append(row);
      });
    });
  }

  find("[data-again]").addEventListener("click", () => { draw += 1; ask(); });
  form.addEventListener("input", (event) => {
    const field = event.target.closest("[data-field]");
    touched.add(field ? field.dataset.field : "");
    if (event.target.name && /-(total|count|least|most|tiers)$/.test(event.target.name)) touched.add(event.target.name);
    // A sum concerns all: what was said of the budget is looked at again with every amount.
    touched.add("budget");
    later();
  });
  form.addEventListener("change", later);
  form.addEventListener("focusin", (event) => {
    const packet = event.target.closest("[data-packet]");
    const at = packet ? livePackets().indexOf(packet) : -1;
    if (at >= 0 && at !== shown) { shown = at; if (last) show(); }
  });
  // Red in the browser too: what the server has refused stays marked until it is right.
  if (find(".ls-note.is-bad[role=alert]")) touched.add("*");
  form.addEventListener("submit", () => { form.dataset.sent = "yes"; });
  // What was refused is brought into view; the page may be long.
  const bad = find(".has-error");
  if (bad) {
    bad.closest("details")?.setAttribute("open", "");
    bad.scrollIntoView({ block: "center" });
    bad.querySelector("input, select, textarea")?.focus({ preventScroll: true });
  }
  let dirty = false;
  form.addEventListener("input", () => { dirty = true; });
  window.addEventListener("beforeunload", (event) => {
    if (dirty && !form.dataset.sent) event.preventDefault();
  });

  findAll("[data-packet]", box).forEach(dress);
  number();
  ask();
})();
