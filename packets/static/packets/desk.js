// The desk of payouts: fetches its picture anew every few seconds, as long as somebody looks.
"use strict";
(() => {
  const box = document.querySelector("[data-desk]");
  if (!box) return;
  laisee.every(3000, async () => {
    const answer = await fetch(box.dataset.desk, {
      credentials: "same-origin", headers: { "X-Requested-With": "fetch", "X-Background": "1" },
    });
    if (answer.redirected || answer.status === 403) { location.reload(); return; }
    const stale = document.querySelector("[data-offline]");
    if (stale) stale.hidden = answer.ok;
    if (answer.ok) box.innerHTML = await answer.text();
  });
})();
