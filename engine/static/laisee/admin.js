// Small helpers shared by our admin pages. No dependency but the theme's Chart.js.
"use strict";
window.laisee = {
  token() {
    const field = document.querySelector("input[name=csrfmiddlewaretoken]");
    return field ? field.value : "";
  },
  colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  },
  dark() {
    return document.documentElement.classList.contains("dark");
  },
  // Colours that can be told apart in light and dark and by people who see red and green alike.
  palette() {
    return this.dark()
      ? ["#fbbf24", "#60a5fa", "#f87171", "#34d399", "#c084fc", "#94a3b8"]
      : ["#b45309", "#2563eb", "#dc2626", "#059669", "#9333ea", "#64748b"];
  },
  axes(extra) {
    const line = this.dark() ? "rgba(148,163,184,.18)" : "rgba(100,116,139,.16)";
    const text = this.dark() ? "#94a3b8" : "#64748b";
    const axis = () => ({ grid: { color: line }, ticks: { color: text, maxTicksLimit: 7 }, border: { display: false } });
    return {
      animation: false, responsive: true, maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      scales: { x: { ...axis(), grid: { display: false } }, y: { ...axis(), beginAtZero: true } },
      plugins: { legend: { labels: { color: text, boxWidth: 10, boxHeight: 10 } } },
      ...extra,
    };
  },
  yuan(fen) {
    const sign = fen < 0 ? "-" : "", all = Math.abs(fen);
    const whole = Math.floor(all / 100).toString().replace(/\B(?=(\d{3})+$)/g, ",");
    return sign + "¥" + whole + "." + String(all % 100).padStart(2, "0");
  },
  number(n) {
    return String(n).replace(/\B(?=(\d{3})+$)/g, ",");
  },
  // Calls `work` at once and then every `ms`, never two at a time, and not while nobody looks.
  every(ms, work) {
    const turn = async () => {
      if (!document.hidden) {
        try { await work(); } catch (trouble) { console.warn(trouble); }
      }
      setTimeout(turn, ms);
    };
    turn();
  },
  async json(address, options) {
    const answer = await fetch(address, { credentials: "same-origin", headers: { "X-Requested-With": "fetch" }, ...options });
    if (answer.redirected || answer.status === 403) { location.reload(); return null; }
    if (!answer.ok) throw new Error("HTTP " + answer.status);
    return answer.json();
  },
};
