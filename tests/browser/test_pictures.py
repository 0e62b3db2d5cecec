"""The docs' pictures: each that is shown is there, in both languages, and light enough to keep."""

from __future__ import annotations

import re
from pathlib import Path

from tests.browser.hand import PICTURE_MAX_BYTES

BASE = Path(__file__).resolve().parent.parent.parent
PICTURES = BASE / "docs" / "pictures"
PAGES = [BASE / "README.md", *sorted((BASE / "docs").glob("*.md"))]
_SHOWN = re.compile(r"!\[[^\]]*\]\(([^)]+\.png)\)")


def test_every_picture_is_shown_and_every_shown_one_is_there() -> None:
    shown = {
        (page.parent / address).resolve()
        for page in PAGES
        for address in _SHOWN.findall(page.read_text())
    }
    kept = set(PICTURES.glob("*.png"))
    assert shown <= kept, "a page shows a picture that isn't there"
    assert kept <= shown, "a picture is kept that no page shows; see PICTURES in the Makefile"


def test_every_picture_is_there_in_both_languages() -> None:
    names = {path.name for path in PICTURES.glob("*.png")}
    stems = {name.split(".")[0] for name in names}
    assert names == {f"{stem}.{language}.png" for stem in stems for language in ("zh", "en")}


def test_pictures_are_light() -> None:
    sizes = {path.name: path.stat().st_size for path in PICTURES.glob("*.png")}
    assert {name: size for name, size in sizes.items() if size > PICTURE_MAX_BYTES} == {}
