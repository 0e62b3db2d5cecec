"""POST /me/withdrawals: out of the wallet, once, within what the provider account allows."""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from engine.lib import clock
from engine.lib.crypto import decrypt
from engine.models import AuditEvent, ClientApp, IdempotencyRecord
from packets.api import payout_schemas
from packets.holds import editing
from packets.models import Packet, Payout, ProviderAccount
from packets.payouts import sending, withdrawals
from packets.payouts.allowance import percentile
from packets.payouts.withdrawals import payee_mask
from packets.providers.base import Kind, Result
from packets.providers.sandbox.adapter import CAPABILITIES
from packets.wallets import wallet_of
from tests import wallets
from tests.api.answers import Answer
from tests.api.doors import Visitor
from tests.campaign import stage
from tests.packets.payouts.stage import Rail, payout_of, use, wallet_with
from tests.wallets import assert_sound, available_fen, books, digest, fill

assert CAPABILITIES.max_fen is not None
pytestmark = pytest.mark.django_db(transaction=True)
Visit = Callable[..., Visitor]

BODY: dict[str, Any] = {
    "amount_fen": 1_000,
    "provider": "bank",
    "payee": {"account": "13812345678", "name": "张爱丽"},
}


@pytest.fixture
def bank() -> ProviderAccount:
    return wallets.bank()


@pytest.fixture
def alice(visit: Visit, app: ClientApp, bank: ProviderAccount) -> Visitor:
    """Alice, with ¥100 in her wallet."""
    fill(app, ["alice"], 10_000)
    return visit("alice")


def withdraw(who: Visitor, key: str = "", **changes: Any) -> Answer:
    return who.post(
        "/me/withdrawals", {**BODY, **changes}, **{"Idempotency-Key": key or uuid.uuid4().hex}
    )


def allow(**columns: Any) -> None:
    ProviderAccount.objects.update(**columns)


def refused(answer: Answer) -> tuple[str, str]:
    """Where and why, of a 422 with one reason."""
    assert answer.status == 422, answer.json
    ((pointer, code),) = answer.pointers
    return pointer, code


# --- taking money out -----------------------------------------------------------------------------


def test_alice_takes_money_out(alice: Visitor, app: ClientApp) -> None:
    made = withdraw(alice)

    assert made.status == 201, made.json
    payout = Payout.objects.get()
    assert made.json == {
        "id": payout.id.hex,
        "amount_fen": 1_000,
        "currency": "CNY",
        "provider": "bank",
        "payee": {"account": "138***78"},
        "state": "waiting",
        "user_action": None,
        "failure": None,
        "created_at": clock.rfc3339(payout.created_at),
        "ended_at": None,
        "eta_s": 10,
    }
    assert alice.get("/me/wallet").json == {
        "available_fen": 9_000,
        "pending_fen": 0,
        "held_fen": 0,
        "withdrawing_fen": 1_000,
        "currency": "CNY",
    }
    (moved, _) = alice.get("/me/wallet/transfers").json["results"]
    assert (moved["kind"], moved["amount_fen"]) == ("payout", -1_000)
    assert payout.next_attempt_at is not None
    # In the clear for the provider only.
    assert json.loads(decrypt(payout.payee_encrypted)) == BODY["payee"]
    event = AuditEvent.objects.get(action="payout.create")
    assert event.actor == f"client:{digest(app, 'alice').hex()}"
    everything = f"{event.after} {payout.payee_masked} {payout.payee_hash} {made.json}"
    assert "1381234" not in everything
    assert "爱丽" not in everything
    assert_sound()


def test_her_withdrawals_are_hers_to_see(alice: Visitor, visit: Visit) -> None:
    first, second = withdraw(alice).json, withdraw(alice, amount_fen=2_000).json

    page = alice.get("/me/withdrawals?limit=1").json
    assert [one["id"] for one in page["results"]] == [second["id"]]
    further = alice.get(page["next"].split("/api/v1")[1]).json
    (listed,) = further["results"]
    alone = alice.get(f"/me/withdrawals/{first['id']}").json
    assert alone == first == listed | {"eta_s": 10}
    assert visit("bob").get("/me/withdrawals").json["results"] == []
    for path in (f"/me/withdrawals/{first['id']}", "/me/withdrawals/x"):
        assert visit("bob").get(path).status == 404
    stranger = visit("alice", of=stage.make_app())
    assert stranger.get(f"/me/withdrawals/{first['id']}").status == 404


def test_how_long_it_takes_is_said_by_ones_place_in_the_line(
    alice: Visitor, bank: ProviderAccount
) -> None:
    """Sixty before her at one a second: she waits a minute, the one in the middle half of it."""
    allow(rate_per_minute=60)
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        now: dt.datetime = cursor.fetchone()[0]
    wallet = wallet_with("crowd", 600)
    gate = Packet.objects.get().gate_id
    crowd = [
        payout_of(
            bank,
            amount_fen=10,
            wallet=wallet,
            share=gate,
            created_at=now - dt.timedelta(seconds=600 - 10 * n),
        )
        for n in range(60)
    ]
    withdrawals._line.cache_clear()

    made = withdraw(alice).json

    assert made["eta_s"] == 10 + 60
    withdrawals._line.cache_clear()
    alone = alice.get(f"/me/withdrawals/{made['id']}").json
    assert abs(alone["eta_s"] - 70) <= 1
    etas = [withdrawals.eta_s(payout) for payout in crowd]
    assert etas == sorted(etas)
    assert etas[0] == 10
    assert 30 <= etas[30] <= 40


STATES = {
    "created": "waiting",
    "submitting": "sending",
    "accepted": "sending",
    "unknown": "sending",
    "user_action": "user_action",
    "paid": "paid",
    "failed": "failed",
    "cancelled": "cancelled",
}


def test_what_the_states_are_to_her() -> None:
    account = ProviderAccount(name="bank")
    for state in Payout.State:
        payout = Payout(
            account=account, state=state, created_at=clock.now(), user_action={"package": "p"}
        )
        shown = payout_schemas.withdrawal(payout)
        assert shown.state == STATES[state]
        assert (shown.user_action is not None) == (state == Payout.State.USER_ACTION)
        assert shown.failure == ("unknown" if state == Payout.State.FAILED else None)
    waits = Payout(account=account, manual_reason="review", created_at=clock.now())
    assert payout_schemas.withdrawal(waits).state == "review"


def test_an_account_is_masked() -> None:
    assert [payee_mask(a) for a in ("13812345678", "ann@example.com", "12345", "ab", "a")] == [
        "138***78",
        "ann***om",
        "1***5",
        "a***",
        "a***",
    ]


# --- nonsense -------------------------------------------------------------------------------------

NONSENSE: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({"amount_fen": 0}, "/amount_fen", "out_of_range"),
    "less than nothing": ({"amount_fen": -1}, "/amount_fen", "out_of_range"),
    "everything": ({"amount_fen": 10**18}, "/amount_fen", "out_of_range"),
    "more than 2^63": ({"amount_fen": 10**30}, "/amount_fen", "out_of_range"),
    "a part of a fen": ({"amount_fen": 0.1}, "/amount_fen", "wrong_type"),
    "a whole float": ({"amount_fen": 100.0}, "/amount_fen", "wrong_type"),
    "a text": ({"amount_fen": "1000"}, "/amount_fen", "wrong_type"),
    "null": ({"amount_fen": None}, "/amount_fen", "wrong_type"),
    "true": ({"amount_fen": True}, "/amount_fen", "wrong_type"),
    "a fen more than there is": ({"amount_fen": 10_001}, "/amount_fen", "insufficient_funds"),
    "more than the provider pays": (
        {"amount_fen": CAPABILITIES.max_fen + 1},
        "/amount_fen",
        "out_of_range",
    ),
    "no such provider": ({"provider": "bunk"}, "/provider", "unknown_choice"),
    "no provider's name": ({"provider": "a b"}, "/provider", "wrong_format"),
    "no payee": ({"payee": {}}, "/payee/account", "required"),
    "a blank payee": ({"payee": {"account": "  "}}, "/payee/account", "format"),
    "two lines": ({"payee": {"account": "a\nb"}}, "/payee/account", "format"),
    "a name that hides": (
        {"payee": {"account": "a", "name": "\u202ebob"}},
        "/payee/name",
        "format",
    ),
    "more of the payee": (
        {"payee": {"account": "a", "wallet": "bob"}},
        "/payee/wallet",
        "unknown_field",
    ),
    "somebody else's wallet": ({"wallet": "bob"}, "/wallet", "unknown_field"),
    "somebody else": ({"sub": "bob"}, "/sub", "unknown_field"),
    "dollars": ({"currency": "USD"}, "/currency", "unknown_field"),
}


def test_nonsense_moves_nothing(alice: Visitor, visit: Visit, app: ClientApp) -> None:
    fill(app, ["bob"])
    before = books()

    for name, (changes, pointer, code) in NONSENSE.items():
        assert refused(withdraw(alice, **changes)) == (pointer, code), name
    assert refused(withdraw(visit("nobody"))) == ("/amount_fen", "insufficient_funds")
    assert books() == before
    assert Payout.objects.count() == 0


# --- what the account allows ----------------------------------------------------------------------


def test_an_account_that_is_off_or_anothers(alice: Visitor, bank: ProviderAccount) -> None:
    before = books()
    allow(is_active=False)
    assert refused(withdraw(alice)) == ("/provider", "not_available")
    allow(is_active=True, client_apps=[999_999])
    assert refused(withdraw(alice)) == ("/provider", "unknown_choice")
    allow(client_apps=[], credentials_encrypted="")
    assert refused(withdraw(alice)) == ("/provider", "not_available")
    assert books() == before


def test_amounts_per_payout(alice: Visitor) -> None:
    allow(min_fen=500, max_fen=2_000)

    assert refused(withdraw(alice, amount_fen=499)) == ("/amount_fen", "out_of_range")
    assert refused(withdraw(alice, amount_fen=2_001)) == ("/amount_fen", "out_of_range")
    assert withdraw(alice, amount_fen=500).status == withdraw(alice, amount_fen=2_000).status == 201


def test_a_persons_day(alice: Visitor, visit: Visit, app: ClientApp) -> None:
    fill(app, ["bob"])
    allow(person_day_fen=3_000, person_day_count=3)

    assert withdraw(alice, amount_fen=2_000).status == 201
    assert refused(withdraw(alice, amount_fen=1_001)) == ("/amount_fen", "day_limit_reached")
    assert withdraw(alice, amount_fen=500).status == withdraw(alice, amount_fen=500).status == 201
    assert refused(withdraw(alice, amount_fen=10)) == ("/provider", "day_count_reached")
    assert withdraw(visit("bob"), amount_fen=3_000).status == 201
    # What came back counts no more, and neither does yesterday.
    payout = Payout.objects.get(amount_fen=2_000)
    assert cancel(alice, payout.id.hex).status == 200
    assert withdraw(alice, amount_fen=2_000).status == 201


def test_everybodys_day(alice: Visitor, visit: Visit, app: ClientApp) -> None:
    fill(app, ["bob"])
    allow(day_limit_fen=3_000)

    assert withdraw(alice, amount_fen=2_000).status == 201
    assert refused(withdraw(visit("bob"), amount_fen=1_001)) == ("/provider", "full_today")
    assert withdraw(visit("bob"), amount_fen=1_000).status == 201


_MIDNIGHT = "SELECT date_trunc('day', now() AT TIME ZONE %s) AT TIME ZONE %s"


def test_a_day_begins_at_midnight_of_the_accounts_zone(
    alice: Visitor, app: ClientApp, bank: ProviderAccount
) -> None:
    # Where it is noon now, so that no midnight comes in between.
    ahead = 12 - clock.now().hour
    zone = f"Etc/GMT{-ahead:+d}"
    allow(person_day_count=1, timezone=zone)
    bank.refresh_from_db()
    with connection.cursor() as cursor:
        cursor.execute(_MIDNIGHT, [zone, zone])
        midnight = cursor.fetchone()[0]
    wallet = wallet_of(digest(app, "alice"))

    payout_of(bank, wallet=wallet, created_at=midnight - dt.timedelta(seconds=1))
    allow(client_apps=[app.pk])
    assert withdraw(alice, amount_fen=10).status == 201
    allow(person_day_count=2)
    payout_of(bank, wallet=wallet, created_at=midnight)
    assert refused(withdraw(alice, amount_fen=10)) == ("/provider", "day_count_reached")


def test_hours_of_the_day(alice: Visitor) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT (now() AT TIME ZONE 'Asia/Shanghai')::timestamp")
        now: dt.datetime = cursor.fetchone()[0]
    hour = dt.timedelta(hours=1)
    shut = {"opens_at": (now + hour).time(), "closes_at": (now + 2 * hour).time()}
    open_ = {"opens_at": (now - hour).time(), "closes_at": (now + hour).time()}
    over_midnight = {"opens_at": (now + 2 * hour).time(), "closes_at": (now + hour).time()}

    allow(**shut)
    assert refused(withdraw(alice)) == ("/provider", "outside_hours")
    for hours in (open_, over_midnight):
        allow(**hours)
        assert withdraw(alice).status == 201


def test_for_some_people_first(alice: Visitor, app: ClientApp, bank: ProviderAccount) -> None:
    people = [digest(app, f"p{number}") for number in range(2_000)]

    def let_in(percent: int) -> set[bytes]:
        return {who for who in people if percentile(bank, who) < percent}

    # A larger share lets further people in, and nobody out.
    assert let_in(0) == set()
    assert let_in(20) < let_in(60) < let_in(100) == set(people)
    assert 300 < len(let_in(20)) < 500
    assert let_in(20) != {p for p in people if percentile(ProviderAccount(name="b2"), p) < 20}
    mine = percentile(bank, digest(app, "alice"))
    allow(grey_percent=mine)
    assert refused(withdraw(alice)) == ("/provider", "not_available")
    allow(grey_percent=mine + 1)
    assert withdraw(alice).status == 201


# --- what a person looks at first -----------------------------------------------------------------


def test_a_large_amount_waits_for_a_person(alice: Visitor, app: ClientApp) -> None:
    allow(review_above_fen=1_000)

    assert withdraw(alice, amount_fen=1_000).json["state"] == "waiting"
    waits = withdraw(alice, amount_fen=1_001).json
    assert (waits["state"], waits["eta_s"]) == ("review", None)
    payout = Payout.objects.get(id=waits["id"])
    assert payout.review_reasons == ["large_amount"]
    assert (payout.next_attempt_at, payout.manual_reason) == (None, "review")
    assert available_fen(app, "alice") == 7_999
    assert_sound()


def test_a_risk_rule_makes_it_wait(alice: Visitor, visit: Visit, app: ClientApp) -> None:
    fill(app, ["bob"])
    rule = editing.Wanted(kind="wallets_per_payee", most=1, window_s=3_600)
    editing.rule_set(wanted=rule, actor="test")

    assert withdraw(alice).json["state"] == "waiting"
    assert withdraw(visit("bob")).json["state"] == "review"
    assert Payout.objects.get(manual_reason="review").review_reasons == ["wallets_per_payee"]
    # Upper and lower case and blanks around it make no other payee.
    other = {"payee": {"account": " X@Bank "}}, {"payee": {"account": "x@bank"}}
    assert withdraw(alice, **other[0]).json["state"] == "waiting"
    assert withdraw(visit("bob"), **other[1]).json["state"] == "review"


# --- taken back -----------------------------------------------------------------------------------


def cancel(who: Visitor, withdrawal_id: str, key: str = "") -> Answer:
    return who.post(
        f"/me/withdrawals/{withdrawal_id}/cancel", **{"Idempotency-Key": key or uuid.uuid4().hex}
    )


def test_she_takes_it_back_as_long_as_nothing_was_sent(
    alice: Visitor, visit: Visit, app: ClientApp
) -> None:
    made = withdraw(alice).json
    assert cancel(visit("bob"), made["id"]).status == 404

    answer = cancel(alice, made["id"])

    assert (answer.status, answer.json["state"]) == (200, "cancelled")
    assert available_fen(app, "alice") == 10_000
    (back, *_) = alice.get("/me/wallet/transfers").json["results"]
    assert (back["kind"], back["amount_fen"]) == ("payback", 1_000)
    after = books()
    assert cancel(alice, made["id"]).json["state"] == "cancelled"
    assert books() == after
    assert_sound()


def test_what_is_on_its_way_isnt_taken_back(alice: Visitor) -> None:
    made = withdraw(alice).json
    taken = sending._take(ask_first=False)
    assert isinstance(taken, sending.Taken)
    before = books()

    answer = cancel(alice, made["id"])

    assert (answer.status, answer.code) == (409, "conflict")
    assert "`waiting`" in answer.json["detail"]
    assert books() == before


def test_what_waits_for_her_is_cancelled_at_the_provider(
    alice: Visitor, app: ClientApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    rail = use(monkeypatch, Rail().says(Result(Kind.USER_ACTION, user_action={"package": "p"})))
    monkeypatch.setattr("packets.payouts.withdrawals.provider_of", lambda account: rail)
    made = withdraw(alice).json
    assert sending.payout_step()
    assert alice.get(f"/me/withdrawals/{made['id']}").json["state"] == "user_action"

    assert cancel(alice, made["id"]).json["state"] == "sending"
    assert cancel(alice, made["id"]).json["state"] == "sending"

    rail.says(Result(Kind.FAILED_FINAL, code="CANCELLED"))
    assert sending.payout_step()
    assert rail.steps == ["submit", "cancel"]
    assert alice.get(f"/me/withdrawals/{made['id']}").json["state"] == "cancelled"
    assert available_fen(app, "alice") == 10_000
    assert_sound()


# --- again ----------------------------------------------------------------------------------------


def test_the_same_request_again_takes_nothing(alice: Visitor) -> None:
    first, again = withdraw(alice, "k1"), withdraw(alice, "k1")

    assert (again.status, again.json) == (201, first.json)
    assert again.headers["Idempotent-Replayed"] == "true"
    for other in ({"amount_fen": 999}, {"payee": {"account": "x"}}):
        reused = withdraw(alice, "k1", **other)
        assert (reused.status, reused.code) == (422, "idempotency_key_reused")
    assert Payout.objects.count() == 1


def test_the_same_request_while_the_first_still_runs(
    alice: Visitor, app: ClientApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, go_on = threading.Event(), threading.Event()
    real, answers = withdrawals.audit_record, []

    def slow(**event: Any) -> Any:
        running.set()
        assert go_on.wait(30)
        return real(**event)

    def first() -> None:
        try:
            answers.append(withdraw(alice, "k1"))
        finally:
            connection.close()

    monkeypatch.setattr(withdrawals, "audit_record", slow)
    thread = threading.Thread(target=first)
    thread.start()
    assert running.wait(30)
    same, other = withdraw(alice, "k1"), withdraw(alice, "k1", amount_fen=999)
    go_on.set()
    thread.join(30)

    assert (same.status, same.code) == (409, "in_progress")
    assert same.headers["Retry-After"] == "1"
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert answers[0].status == 201
    # Asked again, it hears the first one's answer.
    assert withdraw(alice, "k1").json == answers[0].json
    assert available_fen(app, "alice") == 9_000


def test_a_key_takes_once_also_after_a_day(alice: Visitor) -> None:
    withdraw(alice, "k1")
    IdempotencyRecord.objects.update(created_at=clock.now() - dt.timedelta(hours=25))
    # Whatever became of the account meanwhile.
    allow(is_active=False)
    before = books()

    late = withdraw(alice, "k1")

    assert (late.status, late.code) == (409, "key_spent")
    assert books() == before


def test_without_a_key_nothing_is_taken(alice: Visitor) -> None:
    made, before = withdraw(alice).json, books()

    for path, body in (
        ("/me/withdrawals", BODY),
        (f"/me/withdrawals/{made['id']}/cancel", None),
    ):
        answer = alice.post(path, body)
        assert (answer.status, answer.code) == (400, "idempotency_key_required")
    assert books() == before


def test_a_failure_in_the_middle_leaves_nothing(
    alice: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = books()

    def dies(**_event: Any) -> None:
        raise OSError("the process dies just before the commit")

    with monkeypatch.context() as patch:
        patch.setattr(withdrawals, "audit_record", dies)
        assert withdraw(alice, "k1").status == 500
    assert books() == before
    assert Payout.objects.count() == 0
    # The app asks again with the same key, as it should.
    assert withdraw(alice, "k1").status == 201
