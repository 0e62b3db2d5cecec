"""Charts as shapes: where each bar and line goes, for templates to draw as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 190
TOP, BOTTOM = 18, 24  # room for the values above and the labels below
LABEL_WIDTH = 52  # narrower bars are labelled every second, third, … time
LINE_LEFT = 8


@dataclass(frozen=True, slots=True)
class Value:
    """One bar. `text` stands above it, `hint` is said when it is pointed at."""

    label: str
    value: float
    text: str = ""
    hint: str = ""
    is_open: bool = False  # may still grow: drawn as an outline
    series: int = 0


@dataclass(frozen=True, slots=True)
class Bar:
    """Places are texts, so that no language's way with decimals can spoil them."""

    x: str
    y: str
    width: str
    height: str
    middle: str  # of the bar, for its text
    text_y: str
    label_x: str
    label: str  # empty where there is no room
    value: Value


@dataclass(frozen=True, slots=True)
class Bars:
    bars: tuple[Bar, ...]
    width: int
    height: int
    base: int
    label_y: int


def bars(values: Sequence[Value], together: int = 1) -> Bars:
    """Bars from left to right; `together` of them share a label (the first one's)."""
    base = HEIGHT - BOTTOM
    most = max((one.value for one in values), default=0.0) or 1.0
    groups = max(1, -(-len(values) // together))
    step = WIDTH / groups
    inner = min(step * 0.8, 90.0 * together)
    each = inner / together
    every = max(1, round(LABEL_WIDTH / step + 0.49))
    found = []
    for number, one in enumerate(values):
        group, place = divmod(number, together)
        left = step * group + (step - inner) / 2 + each * place
        height = (base - TOP) * one.value / most
        shown = place == 0 and (groups - 1 - group) % every == 0
        found.append(
            Bar(
                x=f"{left:.1f}",
                y=f"{base - height:.1f}",
                width=f"{each * 0.92:.1f}",
                height=f"{height:.1f}",
                middle=f"{left + each * 0.46:.1f}",
                text_y=f"{base - height - 5:.1f}",
                label_x=f"{step * (group + 0.5):.1f}",
                label=one.label if shown else "",
                value=one,
            )
        )
    return Bars(tuple(found), WIDTH, HEIGHT, base, HEIGHT - 7)


@dataclass(frozen=True, slots=True)
class Burn:
    """A line of what was spent, a dashed one of what is expected, and the bound."""

    line: str
    ahead: str
    bound_y: float
    width: int
    height: int
    base: int


def burn(
    points: Sequence[Sequence[int]], bound: int, ahead: tuple[int, float] | None
) -> Burn | None:
    """`points`: (second, amount). None where there is nothing to draw."""
    if len(points) < 2 or bound <= 0:
        return None
    base, right = HEIGHT - BOTTOM, WIDTH - LINE_LEFT
    first = points[0][0]
    last = max(points[-1][0], ahead[0] if ahead else 0, first + 1)

    def place(at: float, amount: float) -> str:
        x = LINE_LEFT + (right - LINE_LEFT) * (at - first) / (last - first)
        y = base - (base - TOP) * min(1.0, amount / bound)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(place(at, amount) for at, amount in points)
    dashed = f"{place(*points[-1])} {place(*ahead)}" if ahead else ""
    return Burn(line, dashed, TOP, WIDTH, HEIGHT, base)
