"""CPU time of processes and all their children, from /proc: it holds also on a busy machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[int, int, int] | None:
    """(parent, ticks of its own, ticks of children that have ended)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    parts = text[text.rindex(")") + 2 :].split()
    return int(parts[1]), int(parts[11]) + int(parts[12]), int(parts[13]) + int(parts[14])


def _all() -> dict[int, tuple[int, int, int]]:
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return {pid: found for pid in pids if (found := _stat(pid)) is not None}


def descendants(root: int) -> list[int]:
    """`root` and everything below it that lives now."""
    parents = {pid: parent for pid, (parent, _, _) in _all().items()}
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def used_s(groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Seconds of CPU that each group (roots and all below them) has used since it began."""
    table = _all()
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(pid)

    def ticks(pid: int) -> int:
        _, own, ended = table.get(pid, (0, 0, 0))
        return own + ended + sum(ticks(child) for child in children.get(pid, ()))

    return {name: sum(map(ticks, roots)) * TICK_S for name, roots in groups.items()}
