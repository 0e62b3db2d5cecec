// A bar that follows a list being read or a file being written.
"use strict";
(() => {
  const box = document.querySelector("[data-progress]");
  const start = box.querySelector("[data-start]");
  const turn = async () => {
    const now = await laisee.json(box.dataset.progress, { headers: { "X-Background": "1" } });
    if (!now) return;
    box.querySelector("[data-bar]").style.width = now.percent + "%";
    for (const name of ["rows", "added", "repeated", "refused", "label", "text", "lines"]) {
      const place = box.querySelector(`[data-${name}]`);
      if (place && now[name] !== undefined) place.textContent = now[name];
    }
    if (!now.finished) setTimeout(turn, 1000);
    else if (!start) location.reload(); // what was found is shown by the page
  };
  if (start) start.addEventListener("click", () => setTimeout(turn, 500));
  else if (box.dataset.finished === "no") turn();
})();
