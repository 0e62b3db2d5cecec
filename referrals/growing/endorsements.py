"""A real forest to try the numbers on: who introduced whom among the keys of Debian's developers.

A key's introducer is the older key that signed it first. Key ids, names and mails are dropped as
the lines are read: a person is the rank of their key's age, and nothing else is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

import numpy as np

from referrals.growing.shape import NOBODY, Ints

BAR_PX, WIDTH_PX, LEFT_PX = 22, 640, 90  # of the picture


def introducers(lines: Iterable[str]) -> Ints:
    """Each person's introducer, or NOBODY, from `gpg --list-sigs --with-colons
    --fixed-list-mode`. People are numbered by their keys' age, oldest first."""
    born: dict[str, int] = {}
    signed: list[tuple[int, str, str]] = []
    key = ""
    for line in lines:
        fields = line.split(":")
        if fields[0] == "pub":
            key = fields[4]
            born.setdefault(key, int(fields[5]))
        elif fields[0] == "sig" and fields[4] != key and fields[5].isdigit():
            signed.append((int(fields[5]), fields[4], key))
    rank = {each: number for number, each in enumerate(sorted(born, key=lambda k: (born[k], k)))}
    inviter = np.full(len(rank), NOBODY)
    for at, signer, signee in sorted(signed):
        is_older = signer in born and born[signer] < born[signee] <= at
        if is_older and inviter[rank[signee]] == NOBODY:
            inviter[rank[signee]] = rank[signer]
    return inviter


def picture(by_depth: Sequence[int], title: str) -> str:
    """People at each depth as bars, in SVG."""
    most = max(by_depth)
    height = BAR_PX * (len(by_depth) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}"'
        ' font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<text x="0" y="16">{escape(title)}</text>',
    ]
    for depth, count in enumerate(by_depth):
        y = BAR_PX * (depth + 1) + 6
        width = round((WIDTH_PX - LEFT_PX - 60) * count / most)
        parts += [
            f'<text x="0" y="{y + 14}">depth {depth}</text>',
            f'<rect x="{LEFT_PX}" y="{y}" width="{width}" height="{BAR_PX - 4}" fill="#c0392b"/>',
            f'<text x="{LEFT_PX + width + 6}" y="{y + 14}">{count}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
