"""The report of a drill: one HTML file with charts and tables that needs no network.

Made from `result.json` alone, so an old drill's report can be made anew:

    python -m loadtest.report .data/drill/RUN/result.json
"""

from __future__ import annotations

import html
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 960, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 26, 26
COLOURS = {
    "won": "#c0392b", "sold_out": "#7f8c8d", "already_claimed": "#d4a017", "viewed": "#8fb8d8",
    "unavailable": "#222222", "no_answer": "#8e44ad", "busy": "#e67e22",
}  # fmt: skip
OTHER = "#2a9d8f"
STYLE = """
:root{--ink:#222;--paper:#fff;--line:#ddd;--good:#1e7e34;--bad:#b00020;--soft:#f6f3ee}
@media (prefers-color-scheme:dark){:root{--ink:#eee;--paper:#181818;--line:#444;--good:#58c472;
--bad:#ff6b6b;--soft:#222}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;
max-width:1000px;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
.verdict{display:inline-block;padding:.2rem .8rem;border-radius:.4rem;color:#fff;font-weight:600}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);padding:.3rem
.5rem;text-align:left;vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}
.ok{color:var(--good)}.no{color:var(--bad);font-weight:600}pre{white-space:pre-wrap;
background:var(--soft);padding:.6rem;border-radius:.3rem}
svg{width:100%;height:auto}svg text{fill:var(--ink);font-size:11px}
.grid{stroke:var(--line)}.fault{stroke:var(--bad);stroke-dasharray:4 3}.moment{stroke:#999;
stroke-dasharray:1 4}.window{fill:var(--bad);opacity:.08}
@media print{body{margin:0;max-width:none}}
"""


def page(result: dict[str, Any]) -> str:
    seconds = result["seconds"]
    passed = result["exit_code"] == 0
    colour, word = ("var(--good)", "passed") if passed else ("var(--bad)", "failed")
    title = f"{result['profile']}, at most {result['peak_per_s']:,.0f} arrivals a second"
    parts = [
        f"<h1>Drill {html.escape(result['run'])}: {html.escape(title)}</h1>",
        f"<p><span class='verdict' style='background:{colour}'>{word} (exit code"
        f" {result['exit_code']})</span> {result['achieved']:,} of {result['target']:,} arrivals"
        f" were sent at their time; {result['answered']:,} were answered.</p>",
        "<h2>The verdict</h2>", _checks(result["checks"]),
        "<h2>Arrivals a second</h2>",
        _lines(result, {"target": ("#999", [s["target"] for s in seconds]),
                        "sent": ("#c0392b", [s["achieved"] for s in seconds]),
                        "errors": ("#222", [s["errors"] for s in seconds])}),
        "<h2>Milliseconds from the scheduled arrival to the first answer</h2>",
        _lines(result, {"max": ("#d98880", _series(seconds, "p100_ms")),
                        "p99": ("#c0392b", _series(seconds, "p99_ms")),
                        "p90": ("#e59866", _series(seconds, "p90_ms")),
                        "p50": ("#2a9d8f", _series(seconds, "p50_ms"))}, log=True),
        "<h2>What people heard</h2>", _bands(result),
        "<h2>Faults</h2>", _faults(result),
        "<h2>Run it again</h2>", f"<pre>{html.escape(result['again'])}</pre>",
        "<h2>Where this ran</h2>", _pairs(result["machine"]),
    ]  # fmt: skip
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Drill {html.escape(result['run'])}: {word}</title><style>{STYLE}</style>"
        + "\n".join(parts)
        + "</html>\n"
    )


def _series(seconds: Sequence[dict[str, Any]], name: str) -> list[float | None]:
    return [second.get(name) for second in seconds]


def _checks(checks: Sequence[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td class='{'ok' if check['holds'] else 'no'}'>{'✓' if check['holds'] else '✗'}</td>"
        f"<td>{html.escape(check['group'])}</td><td>{html.escape(check['name'])}</td>"
        f"<td>{html.escape(check['value']).replace(chr(10), '<br>')}</td>"
        f"<td>{html.escape(check['limit'])}</td></tr>"
        for check in checks
    )
    head = "<tr><th></th><th></th><th>what</th><th>measured</th><th>limit</th></tr>"
    return f"<table>{head}{rows}</table>"


def _pairs(pairs: dict[str, Any]) -> str:
    return "<table>{}</table>".format(
        "".join(
            f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(str(value))}</td></tr>"
            for name, value in pairs.items()
        )
    )


def _faults(result: dict[str, Any]) -> str:
    if not result["faults"]:
        return "<p>None was asked for: <code>FAULTS=lose_redis@60,kill_postgres@120</code>.</p>"
    rows = []
    for fault, recovery in zip(result["faults"], result["recoveries"], strict=True):
        back, after_s = fault["back_at"], recovery["after_s"]
        recovered = html.escape(recovery["why"]) if after_s is None else f"{after_s:.1f} s"
        away = "never back" if back is None else f"{back - fault['began_at']:.2f} s"
        rows.append(
            f"<tr><td>{html.escape(fault['name'])}</td>"
            f"<td class='n'>{fault['began_at'] - result['begins_at']:.1f} s</td>"
            f"<td class='n'>{away}</td>"
            f"<td class='n'>{recovered}</td></tr>"
        )
    head = "<tr><th>fault</th><th>at</th><th>away for</th><th>claims well again after</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


# --- charts ---------------------------------------------------------------------------------------


def _x(result: dict[str, Any], at_s: float) -> float:
    return LEFT + at_s / max(1, len(result["seconds"])) * (WIDTH - LEFT - RIGHT)


def _frame(result: dict[str, Any], ticks: Sequence[tuple[float, str]], body: str) -> str:
    """`ticks`: (height from the top in pixels, words)."""
    drawn = []
    for fault in result["faults"]:
        at = _x(result, fault["began_at"] - result["begins_at"])
        back = _x(result, (fault["back_at"] or fault["began_at"]) - result["begins_at"])
        drawn.append(
            f"<rect class='window' x='{at:.1f}' y='{TOP}' width='{max(2.0, back - at):.1f}'"
            f" height='{HEIGHT - TOP - BOTTOM}'/><line class='fault' x1='{at:.1f}' x2='{at:.1f}'"
            f" y1='{TOP}' y2='{HEIGHT - BOTTOM}'/><text x='{at + 3:.1f}' y='{TOP - 14}'>"
            f"{html.escape(fault['name'])}</text>"
        )
    for moment in result["moments"]:
        at = _x(result, moment["at_s"])
        drawn.append(
            f"<line class='moment' x1='{at:.1f}' x2='{at:.1f}' y1='{TOP}' y2='{HEIGHT - BOTTOM}'/>"
            f"<text x='{at + 3:.1f}' y='{TOP - 3}'>{html.escape(moment['name'])}</text>"
        )
    for y, words in ticks:
        drawn.append(
            f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"
            f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{words}</text>"
        )
    length = len(result["seconds"])
    every = max(1, round(length / 8 / 10) * 10) if length > 20 else 5
    for at_s in range(0, length + 1, every):
        x = _x(result, at_s)
        drawn.append(f"<text x='{x:.1f}' y='{HEIGHT - 8}' text-anchor='middle'>{at_s} s</text>")
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>{''.join(drawn)}{body}</svg>"


def _legend(colours: dict[str, str]) -> str:
    return "<p>{}</p>".format(
        " ".join(
            f"<span style='color:{colour}'>■</span> {html.escape(name)}"
            for name, colour in colours.items()
        )
    )


def _lines(
    result: dict[str, Any],
    lines: dict[str, tuple[str, Sequence[float | None]]],
    *,
    log: bool = False,
) -> str:
    most = max((value for _, values in lines.values() for value in values if value), default=1.0)
    span = HEIGHT - TOP - BOTTOM
    if log:
        top = max(1, math.ceil(math.log10(max(most, 10.0))))

        def y(value: float) -> float:
            return HEIGHT - BOTTOM - max(0.0, math.log10(max(value, 1.0))) / top * span

        ticks = [(y(10**power), f"{10**power:,}") for power in range(top + 1)]
    else:

        def y(value: float) -> float:
            return HEIGHT - BOTTOM - value / most * span

        ticks = [(y(most * part / 4), f"{most * part / 4:,.0f}") for part in range(5)]
    drawn = []
    for name, (colour, values) in lines.items():
        points = " ".join(
            f"{_x(result, second + 0.5):.1f},{y(value):.1f}"
            for second, value in enumerate(values)
            if value is not None
        )
        drawn.append(
            f"<polyline fill='none' stroke='{colour}' stroke-width='1.6' points='{points}'>"
            f"<title>{name}</title></polyline>"
        )
    legend = _legend({name: colour for name, (colour, _) in lines.items()})
    return _frame(result, ticks, "".join(drawn)) + legend


def _bands(result: dict[str, Any]) -> str:
    seconds = result["seconds"]
    names = list(result["results"])
    most = max((sum(second["results"].values()) for second in seconds), default=1) or 1
    span = HEIGHT - TOP - BOTTOM
    width = (WIDTH - LEFT - RIGHT) / max(1, len(seconds))
    colours = {name: COLOURS.get(name, OTHER) for name in names}
    drawn = []
    for number, second in enumerate(seconds):
        base = float(HEIGHT - BOTTOM)
        for name in names:
            tall = second["results"].get(name, 0) / most * span
            if tall:
                base -= tall
                drawn.append(
                    f"<rect x='{_x(result, number):.1f}' y='{base:.1f}' width='{width:.2f}'"
                    f" height='{tall:.1f}' fill='{colours[name]}'/>"
                )
    ticks = [(HEIGHT - BOTTOM - part / 4 * span, f"{most * part / 4:,.0f}") for part in range(5)]
    return _frame(result, ticks, "".join(drawn)) + _legend(colours)


def write(result_file: Path) -> Path:
    target = result_file.with_name("report.html")
    target.write_text(page(json.loads(result_file.read_text(encoding="utf-8"))), encoding="utf-8")
    return target


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
