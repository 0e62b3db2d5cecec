"""The whole crowd, with Locust, against a shop that is honest or lies in one way."""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from loadtest import crowd_run
from loadtest.answers import Kind, read_log
from loadtest.target import Seeded, Target
from tests.loadtest.shop import KID, PACKET, SECRET, Shop, open_shop

PEOPLE = 150
PORTIONS = 60


@dataclass(frozen=True, slots=True)
class ShopTarget(Target):
    """A target whose `manage.py` answers from the shop's books."""

    shop: Shop

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        if arguments[0] == "export_claims":
            assert arguments[1:] == ("--packet", PACKET)
            return subprocess.CompletedProcess(arguments, 0, "\n".join(self.shop.export()), "")
        assert arguments == ("audit_money",)
        code = 1 if self.shop.fault == "audit" else 0
        return subprocess.CompletedProcess(arguments, code, "the books by themselves", "")

    def seed(self) -> Seeded:
        return Seeded(PACKET, "cd" * 16, KID, SECRET)


@dataclass
class Ran:
    code: int
    text: str
    figures: dict[str, object]
    log: Path


def send_crowd(shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Ran:
    with open_shop(shop) as address:
        target = ShopTarget(address, folder, {}, shop)
        monkeypatch.setattr(crowd_run, "find_target", lambda: target)
        screen = Console(file=io.StringIO(), width=100)
        options = crowd_run.parse_options(
            ["--people", str(PEOPLE), "--in-flight", "20", "--run", "r", *arguments]
        )
        code = crowd_run.run(options, screen)
    assert isinstance(screen.file, io.StringIO)
    figures = json.loads((folder / "crowd" / f"{options.run}.json").read_text())
    return Ran(code, screen.file.getvalue(), figures, folder / "crowd" / "r.jsonl")


def test_an_honest_shop_is_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(PORTIONS)
    ran = send_crowd(shop, tmp_path, monkeypatch)
    assert ran.code == 0, ran.text
    assert "money check: green" in ran.text
    assert "the books by themselves" in ran.text
    assert (ran.figures["people"], ran.figures["winners"]) == (PEOPLE, PORTIONS)
    assert ran.figures["won_fen"] == 7 * PORTIONS
    answers = list(read_log(ran.log))
    kinds = [answer.kind for answer in answers]
    assert (kinds.count(Kind.FIRST), kinds.count(Kind.AGAIN)) == (PEOPLE, PEOPLE)
    assert kinds.count(Kind.VIEW) == shop.views > 0
    assert len(answers) - shop.views == shop.asked.total()
    assert len(shop.asked) == PEOPLE
    assert 2 <= shop.most_at_once <= 20


def test_a_shop_that_stumbles_is_asked_again_and_green(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = send_crowd(Shop(PORTIONS, "stumbles"), tmp_path, monkeypatch)
    assert ran.code == 0, ran.text
    assert ran.figures["asked_again"] == PEOPLE
    assert ran.figures["winners"] == PORTIONS


def test_everybody_of_a_log_asks_again_into_the_same_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(PORTIONS)
    ran = send_crowd(shop, tmp_path, monkeypatch, "--no-again", "--no-money")
    assert ran.code == 0, ran.text
    before = len(list(read_log(ran.log)))
    again = send_crowd(shop, tmp_path, monkeypatch, "--run", "s", "--ask-again", str(ran.log))
    assert again.code == 0, again.text
    added = list(read_log(ran.log))[before:]
    assert [answer.kind for answer in added] == [Kind.AGAIN] * PEOPLE
    assert again.figures["winners"] == PORTIONS


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("fails", 1, "500 internal_error"),
        ("unmarked", 1, "not marked replayed"),
        ("loses", 4, "is not in Postgres"),
        ("changes", 4, "two claims or two amounts"),
        ("flips", 4, "was refused"),
        ("audit", 4, "MONEY CHECK: RED"),
    ],
)
def test_a_shop_that_is_dishonest_in_one_way_is_red(
    fault: str, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = send_crowd(Shop(PORTIONS, fault), tmp_path, monkeypatch)
    assert ran.code == code, ran.text
    assert said in ran.text


def test_a_shop_that_is_closed_is_an_error_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_shop(Shop(PORTIONS)) as address:
        pass
    target = ShopTarget(address, tmp_path, {}, Shop(PORTIONS))
    monkeypatch.setattr(crowd_run, "find_target", lambda: target)
    monkeypatch.setenv("LAISEE_CROWD_PATIENCE_S", "1")
    screen = Console(file=io.StringIO(), width=100)
    options = crowd_run.parse_options(["--people", "5", "--in-flight", "5", "--run", "r"])
    assert crowd_run.run(options, screen) == 1
    assert isinstance(screen.file, io.StringIO)
    assert "people without an answer" in screen.file.getvalue()
