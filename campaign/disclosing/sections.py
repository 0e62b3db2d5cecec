"""What published words are made of, and staff's own texts in the language that is active."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

from django.utils.translation import get_language


class Row(TypedDict):
    key: str
    label: str
    value: str


class Section(TypedDict):
    key: str
    title: str
    rows: list[Row]
    text: str


class Words(TypedDict):
    title: str
    sections: list[Section]


def section(key: str, title: str, rows: Iterable[Row] = (), text: str = "") -> Section:
    return {"key": key, "title": title, "rows": list(rows), "text": text}


def row(key: str, label: str, value: str) -> Row:
    return {"key": key, "label": label, "value": value}


def own_text(document: dict[str, Any], name: str) -> str:
    """Staff's own words, in the reader's language or else in the other one."""
    zh, en = document.get(f"{name}_zh", ""), document.get(f"{name}_en", "")
    return str((en or zh) if (get_language() or "").startswith("en") else (zh or en))
