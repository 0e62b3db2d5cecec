"""Switches one guard off, so that a test can show what happens without it.

SQL and Lua files mark their guards with comment lines:

    -- guard:<name> begin
    ...
    -- guard:<name> end
"""

from __future__ import annotations

import re

_MARK = re.compile(r"^[ \t]*-- guard:(?P<name>[a-z0-9_]+) (?P<edge>begin|end)[ \t]*$")


def guards(text: str) -> set[str]:
    """The names of the guards that `text` marks."""
    marks = (_MARK.match(line) for line in text.splitlines())
    return {mark["name"] for mark in marks if mark}


def without_guard(text: str, *names: str) -> str:
    """`text` without the lines between the marks of each guard named.

    A guard may be marked in several places; all go. Raises ValueError for a name that isn't marked
    or a mark without its partner: a control that strips nothing would prove nothing.
    """
    missing = set(names) - guards(text)
    if missing:
        raise ValueError(f"no guard named {', '.join(sorted(missing))} in this text")
    kept: list[str] = []
    inside: str | None = None
    for line in text.splitlines(keepends=True):
        mark = _MARK.match(line.rstrip("\r\n"))
        if mark and mark["name"] in names:
            if (mark["edge"] == "begin") != (inside is None):
                raise ValueError(f"guard {mark['name']}: begin and end don't pair")
            inside = mark["name"] if mark["edge"] == "begin" else None
        elif inside is None:
            kept.append(line)
    if inside is not None:
        raise ValueError(f"guard {inside} never ends")
    return "".join(kept)
