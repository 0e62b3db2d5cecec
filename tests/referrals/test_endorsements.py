"""The real graph: what is read of it, what is dropped, and that the document tells its numbers."""

from __future__ import annotations

import io
import json

import numpy as np
from django.core.management import call_command

from referrals.growing.endorsements import introducers, picture
from referrals.growing.metrics import forest_of
from referrals.management.commands.endorsement_report import DOCS, FOREST, PICTURE, TITLE


def pub(key: str, born: int) -> str:
    return f"pub:-:4096:1:{key}:{born}:::-:::scESC::::::23::0:"


def sig(key: str, at: int) -> str:
    return f"sig:::1:{key}:{at}::::A Name <a@example.org>:10x:::::8:"


def test_the_first_older_key_that_signed_is_the_introducer() -> None:
    lines = [
        *(pub("C", 30), sig("C", 30), sig("B", 50), sig("A", 40), sig("X", 35)),
        *(pub("A", 10), sig("C", 60), sig("A", 10)),
        *(pub("B", 20), sig("A", 15), sig("C", 70)),
    ]
    # By age: A, B, C. C was signed by A before B, and by X, who isn't there; A only by a younger
    # key; B by A, at a time before B's key was made, which no clock can mean.
    assert introducers(lines).tolist() == [-1, -1, 0]


def test_the_document_tells_the_numbers_of_the_list() -> None:
    out = io.StringIO()
    call_command("endorsement_report", stdout=out)
    said = json.loads(out.getvalue())
    text = (DOCS / "growth-debian.md").read_text()
    assert f"{said['people']:,}" in text and f"{said['invited']:,}" in text
    assert (
        f"{said['largest']} people, structural virality {said['virality_of_largest']:.2f}" in text
    )
    assert f"| {said['virality']:.2f} |" in text and f"| {said['mean_depth']:.2f} |" in text
    assert f"| {said['trees']}, {said['cascades']} |" in text
    assert PICTURE.read_text() == picture(said["by_depth"], TITLE)


def test_the_list_names_nobody() -> None:
    head, *lines = FOREST.read_text().splitlines()
    assert head == "introducer" and all(int(line) < len(lines) for line in lines)
    forest_of(np.array(lines, np.int64))
