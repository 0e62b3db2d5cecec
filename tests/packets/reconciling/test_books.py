"""Invariant 13, and the three books: whoever looks sees what doesn't agree, and nothing else."""

from __future__ import annotations

import datetime as dt
import io

import orjson
import psycopg
import pytest
from django.core.management import call_command
from django.db.models.functions import Now

from engine.lib.redis import stock as stock_client
from packets import settlement, stock
from packets.invariants import Verdict, invariants_check
from packets.models import Account, Packet, ProviderAccount, StockCheck, Transfer
from packets.providers import provider_of
from packets.providers.base import LineState, ProviderUnavailable
from packets.reconciling.three_way import three_way_check, three_way_due
from tests import world
from tests.packets.reconciling import stage
from tests.packets.reconciling.stage import DAY, account, compared, line, noon, payout

pytestmark = pytest.mark.django_db(transaction=True)

# Checks of `audit_money` that are shown here to see what they are for.
TURNED_RED = ("lines_known", "paid_listed")


def broken() -> dict[str, int]:
    checks = invariants_check(limit_ms=60_000).checks
    return {one.name: one.value for one in checks if one.verdict is not Verdict.HOLDS}


def forget(dsn: str, statement: str) -> None:
    """As nobody should be able to."""
    with psycopg.connect(dsn) as link:
        link.execute("SET session_replication_role = replica")
        assert link.execute(statement).rowcount == 1  # type: ignore[call-overload]


@pytest.fixture
def rail() -> ProviderAccount:
    return account()


@pytest.mark.parametrize("kind", ["missing_here", "amount", "state", "duplicate", "missing_there"])
def test_every_difference_has_its_row_or_the_audit_is_red(
    rail: ProviderAccount, superuser_dsn: str, kind: str
) -> None:
    a = payout(rail)
    # Three days without an outcome: a person has it.
    by_hand = {"manual_reason": "too_long", "manual_at": Now(), "next_attempt_at": None}
    b = payout(rail, state="unknown", **by_hand)
    compared(
        rail,
        *{
            "missing_here": [line(a), line("STRANGE")],
            "amount": [line(a, 999)],
            "state": [line(a), line(b)],
            "duplicate": [line(a), line(a)],
            "missing_there": [],
        }[kind],
    )
    assert broken() == {}
    forget(superuser_dsn, f"DELETE FROM packets_difference WHERE kind = '{kind}'")
    assert broken() == {"paid_listed" if kind == "missing_there" else "lines_known": 1}


def test_days_without_a_statement_say_nothing(rail: ProviderAccount) -> None:
    payout(rail)
    payout(rail, ended=noon(DAY, 23, 55))
    assert broken() == {}


# --- three books ----------------------------------------------------------------------------------


class Purse:
    """A provider's account with so much in it."""

    def __init__(self, fen: int | Exception) -> None:
        self.fen = fen

    def balance(self) -> int:
        if isinstance(self.fen, Exception):
            raise self.fen
        return self.fen


def check(fen: int | Exception = 1_000_000) -> StockCheck:
    return three_way_check(client=stock_client(), provider_of=lambda _account: Purse(fen))  # type: ignore[arg-type,return-value]


def found(made: StockCheck) -> list[tuple[str, str, int, int]]:
    return [(one["what"], one["where"], one["ours"], one["theirs"]) for one in made.report["found"]]


def claimed_packet() -> Packet:
    packet = world.open_packet(1_000, 10, strategy="fixed")
    for name in ("alice", "bob", "carol"):
        world.claim(packet, name)
    settlement.settle_lane(packet.lanes.get().id, limit=2)  # one waits
    return packet


def test_three_books_that_agree(rail: ProviderAccount) -> None:
    open_one, closed = claimed_packet(), claimed_packet()
    from packets import services

    services.packet_close(packet_id=closed.id, actor="test")
    under_way, paid = payout(rail, state="unknown"), payout(rail, 2_000)
    compared(rail, line(paid, 2_000), line(under_way))  # the second one is a difference already
    # One reservation that Postgres doesn't know yet.
    stock_client().hincrby(stock.meta_key(open_one.id, 0), "left_count", -1)

    made = check()
    assert found(made) == []
    assert (made.found, made.report["under_way"], made.report["agrees"]) == (0, 1, True)
    assert made.packets == Packet.objects.count() and made.report["redis"] == "read"
    assert made.report["accounts"]["rail"] == {
        "clearing_fen": 1_000,
        "paid_fen": 2_000,
        "statements_fen": 2_000,
        "balance_fen": 1_000_000,
        "balance_error": "",
        "came_in_fen": None,
    }


def test_stock_that_redis_should_not_have() -> None:
    packet = claimed_packet()
    meta = stock.meta_key(packet.id, 0)
    stock_client().hset(meta, "left_count", 8)  # a stale copy: bob's portion again
    assert found(check()) == [("stock_above", f"{packet.id.hex}:0", 7, 8)]
    stock_client().hset(meta, "epoch", 9)
    assert found(check()) == [("stock_epoch", f"{packet.id.hex}:0", 1, 9)]
    world.wipe_redis()
    made = check()
    assert found(made) == [] and made.report["not_loaded"] == 1


def test_an_escrow_that_is_not_what_the_lanes_say(superuser_dsn: str) -> None:
    packet = claimed_packet()
    forget(
        superuser_dsn,
        f"UPDATE packets_account SET credits_fen = credits_fen + 5 WHERE id = {packet.escrow_id}",
    )
    assert found(check()) == [("escrow", packet.id.hex, 805, 800)]


def test_clearing_that_is_not_what_is_under_way(rail: ProviderAccount) -> None:
    payout(rail, state="accepted")
    clearing = Account.objects.get(kind="clearing")
    stage.move("payout:nothing", Transfer.Kind.PAYOUT, stage.wallet("mallory", 700), clearing, 700)
    assert found(check()) == [("clearing", "rail", 1_700, 1_000)]


def test_money_that_left_the_provider_s_account_and_nobody_here_knows(
    rail: ProviderAccount,
) -> None:
    payout(rail, state="unknown")
    assert found(check(100_000)) == []
    payout(rail, 2_000)
    # What we paid, and what may be paid already without our knowledge, is explained.
    assert found(check(100_000 - 3_000)) == []
    made = check(100_000 - 5_001)
    assert found(made) == [("provider_balance", "rail", 97_000, 94_999)]
    assert made.report["accounts"]["rail"]["came_in_fen"] == -2_001
    # Somebody topped it up.
    assert found(check(500_000)) == []


def test_a_provider_that_tells_no_balance(rail: ProviderAccount) -> None:
    made = check(ProviderUnavailable("maintenance"))
    assert found(made) == []
    assert made.report["accounts"]["rail"]["balance_error"] == "maintenance"


def test_keys_that_cannot_be_read_hide_no_other_account(rail: ProviderAccount) -> None:
    ProviderAccount.objects.filter(pk=rail.pk).update(credentials_encrypted="gone:abc")
    made = three_way_check(client=stock_client(), provider_of=provider_of)
    facts = made.report["accounts"]["rail"]
    assert "gone" in facts["balance_error"] and facts["clearing_fen"] == 0
    assert found(made) == []


def test_the_hourly_job_runs_once_an_hour() -> None:
    def run() -> bool:
        return three_way_due(client=stock_client(), provider_of=lambda _account: Purse(0))  # type: ignore[arg-type,return-value]

    assert (run(), run()) == (True, False)


def test_the_command_prints_and_exits() -> None:
    packet = claimed_packet()
    out = io.StringIO()
    call_command("three_way_check", "--json", stdout=out)
    assert orjson.loads(out.getvalue())["agrees"] is True
    stock_client().hset(stock.meta_key(packet.id, 0), "left_count", 8)
    out = io.StringIO()
    with pytest.raises(SystemExit) as stop:
        call_command("three_way_check", stdout=out)
    assert stop.value.code == 1
    assert f"! stock_above {packet.id.hex}:0: ours 7, theirs 8" in out.getvalue()


def test_returned_money_is_in_no_sum(rail: ProviderAccount) -> None:
    back = payout(rail, state="failed")
    compared(rail, line(back), line(back, state=LineState.REFUNDED, at=noon() + dt.timedelta(1)))
    assert found(check()) == [] and broken() == {}
