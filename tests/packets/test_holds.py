"""Held money: what the rules hold, where it lies, and how it gets out, once."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from engine.lib.errors import ServiceError, TransitionRefused
from engine.models import AuditEvent
from packets import ledger, services, settlement
from packets.holds import editing, rules
from packets.holds.appeals import appeal_text, hold_appeal
from packets.holds.resolving import hold_forfeit, hold_release
from packets.holds.rules import RiskReason
from packets.invariants import invariants_check
from packets.models import (
    Account,
    Claim,
    ClaimState,
    Hold,
    HoldAppeal,
    RiskRule,
    Transfer,
)
from tests.factories import Funding, make_claims, make_funding, make_packet
from tests.packets.holding import Kind, claims_of_one, freeze, held_fen, held_hold, rule, sound
from tests.packets.payouts.stage import payout_of, provider_account
from tests.packets.settling import escrow_fen, one_lane, picture, wallet_fen
from tests.world import person

pytestmark = pytest.mark.django_db(transaction=True)


# --- settlement asks ------------------------------------------------------------------------------


def test_without_a_rule_everything_is_paid() -> None:
    _, lane, who = claims_of_one(5)
    done = settlement.settle_lane(lane.id)
    assert (done.settled, done.held) == (5, 0)
    assert (wallet_fen(who), held_fen(who)) == (500, 0)
    assert not Hold.objects.exists()


def test_more_claims_than_usual_are_held_and_everybody_else_is_paid() -> None:
    made = rule(most=2)
    packet, lane, mallory = claims_of_one(5)
    others = [bytes(claim.participant) for claim in make_claims(lane, 3)]

    done = settlement.settle_lane(lane.id)

    assert (done.settled, done.settled_fen, done.held, done.parked) == (5, 500, 3, 0)
    # The first two are usual; those after them wait.
    assert (wallet_fen(mallory), held_fen(mallory)) == (200, 300)
    assert [wallet_fen(who) for who in others] == [100] * 3
    holds = Hold.objects.select_related("claim").order_by("claim__position")
    assert [hold.claim.position for hold in holds] == [3, 4, 5]
    last = holds[2]
    assert last.state == "open" and last.rule == made and last.reasons == ["claims_per_person"]
    assert last.evidence == [
        {"reason": "claims_per_person", "most": 2, "window_s": 3_600, "seen": 5}
    ]
    assert (last.wallet.owner, last.funder_id) == (mallory.hex(), packet.funder_id)
    states = ClaimState.objects.order_by("claim__position").values_list("state", flat=True)
    assert list(states) == ["settled"] * 2 + ["held"] * 3 + ["settled"] * 3
    assert escrow_fen(packet) == 2_000 - 800
    assert sound()
    progress = invariants_check().progress
    assert (progress.claims, progress.settled, progress.held, progress.waiting) == (8, 5, 3, 0)


def test_more_money_than_usual_is_held() -> None:
    rule(Kind.AMOUNT_PER_PERSON, most=250)
    _, lane, who = claims_of_one(4)
    settlement.settle_lane(lane.id)
    assert (wallet_fen(who), held_fen(who)) == (200, 200)
    assert Hold.objects.latest("claim__position").evidence[0]["seen"] == 400
    assert sound()


def test_two_rules_give_two_reasons_and_one_hold() -> None:
    rule(most=2)
    rule(Kind.AMOUNT_PER_PERSON, most=250)
    _, lane, who = claims_of_one(3)
    settlement.settle_lane(lane.id)
    hold = Hold.objects.get()
    assert hold.reasons == ["claims_per_person", "amount_per_person"]
    assert [one["seen"] for one in hold.evidence] == [3, 300]
    assert held_fen(who) == 100


def test_the_answer_does_not_depend_on_the_batches() -> None:
    rule(most=2)
    _, lane, who = claims_of_one(5)
    results = [settlement.settle_lane(lane.id, limit=1) for _ in range(5)]
    assert [done.held for done in results] == [0, 0, 1, 1, 1]
    assert (wallet_fen(who), held_fen(who)) == (200, 300)


def test_claims_of_other_packets_count_and_those_before_the_window_do_not(
    superuser_dsn: str,
) -> None:
    rule(most=2, window_s=60)
    _, lane, who = claims_of_one(2)
    with psycopg.connect(superuser_dsn) as link:
        link.execute("SET session_replication_role = replica")
        link.execute("UPDATE packets_claim SET committed_at = committed_at - interval '1 hour'")
    _, other = one_lane(5)
    _, third = one_lane(5)
    for where in (other, third):
        make_claims(where, 1, participants=[who])
    for where in (lane, other, third):
        settlement.settle_lane(where.id)
    assert held_fen(who) == 0
    _, fourth = one_lane(5)
    make_claims(fourth, 1, participants=[who])
    assert settlement.settle_lane(fourth.id).held == 1


def test_a_rule_that_is_switched_off_or_replaced_says_nothing() -> None:
    first = rule(most=1)
    second = editing.rule_set(
        wanted=editing.Wanted(kind=Kind.CLAIMS_PER_PERSON, most=4, window_s=60),
        actor="staff:ria",
        after=first,
    )
    _, lane, who = claims_of_one(3)
    assert settlement.settle_lane(lane.id).held == 0
    third = editing.rule_set(
        wanted=editing.Wanted(kind=Kind.CLAIMS_PER_PERSON, most=1, window_s=60, is_active=False),
        actor="staff:ria",
        after=second,
    )
    make_claims(lane, 1, participants=[who], serial=3)
    assert settlement.settle_lane(lane.id).held == 0
    # The old versions stay as they were.
    assert list(RiskRule.objects.order_by("version").values_list("version", "most")) == [
        (1, 1), (2, 4), (3, 1),
    ]  # fmt: skip
    assert list(rules.rules_current()) == [third]


def test_a_parked_claim_may_be_held_in_the_end() -> None:
    rule(most=1)
    _, lane, who = claims_of_one(2)
    claim = Claim.objects.get(position=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settlement, "_move", _refuse)
        settlement.settle_lane(lane.id)
    assert ClaimState.objects.get(claim=claim).state == "parked"
    done = settlement.retry_parked()
    assert (done.settled, done.held) == (1, 1)
    assert ClaimState.objects.get(claim=claim).state == "held"
    assert (wallet_fen(who), held_fen(who)) == (100, 100)
    assert sound()


def _refuse(*_: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'no'; END $$")


def test_a_detector_of_another_room_is_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Farms:
        def suspicions(self, cursor: Any, batch: rules.Batch) -> Any:
            cursor.execute(
                "SELECT id FROM packets_claim WHERE lane_id = %s AND position BETWEEN %s AND %s"
                " AND position % 2 = 0".replace("% 2", "%% 2"),
                [batch.lane_id, batch.first, batch.last],
            )
            return [(row[0], RiskReason.STAFF, None, {"ring": 7}) for row in cursor.fetchall()]

    monkeypatch.setattr(rules, "DETECTORS", (*rules.DETECTORS, Farms()))
    _, lane = one_lane(10)
    make_claims(lane, 4)
    done = settlement.settle_lane(lane.id)
    assert (done.settled, done.held) == (2, 2)
    assert set(Hold.objects.values_list("rule", flat=True)) == {None}
    assert sound()


# --- out of a wallet ------------------------------------------------------------------------------


def test_a_wallet_gives_what_is_available() -> None:
    packet, lane, who = claims_of_one(3)
    settlement.settle_lane(lane.id)
    first = freeze(who, 200, packet.funder_id)
    second = freeze(who, 200, packet.funder_id)
    assert first is not None and second is not None
    assert (first.amount_fen, second.amount_fen) == (200, 100)
    assert (wallet_fen(who), held_fen(who)) == (0, 300)
    assert freeze(who, 1, packet.funder_id) is None
    assert Hold.objects.count() == AuditEvent.objects.filter(action="hold.open").count() == 2
    assert sound()
    hold_release(hold_id=first.pk, actor="staff:ria", reason="honest after all")
    hold_forfeit(hold_id=second.pk, actor="staff:ria", reason="a farm")
    assert (wallet_fen(who), held_fen(who)) == (200, 0)
    # What settled claims were settled with stays what it was.
    assert set(ClaimState.objects.values_list("state", flat=True)) == {"settled"}
    assert sound()


# --- decided --------------------------------------------------------------------------------------


def test_released_it_is_the_winner_s() -> None:
    _, [hold] = held_hold()
    who = bytes(hold.participant)
    done = hold_release(hold_id=hold.pk, actor="staff:ria", reason="looks fine")
    assert (done.state, done.resolved_by, done.reason) == ("released", "staff:ria", "looks fine")
    assert (wallet_fen(who), held_fen(who)) == (200, 0)
    state = ClaimState.objects.get(claim=hold.claim)
    assert state.transfer is not None
    assert (state.state, state.transfer.reference) == ("settled", f"resolve:{hold.pk.hex}")
    event = AuditEvent.objects.get(action="hold.release")
    assert (event.actor, event.reason, event.after["amount_fen"]) == (
        "staff:ria", "looks fine", 100,
    )  # fmt: skip
    assert sound()


def test_forfeited_it_goes_back_to_whoever_funded_the_packet() -> None:
    packet, [hold] = held_hold()
    who, before = bytes(hold.participant), ledger.balance_fen(packet.funder_id)
    hold_forfeit(hold_id=hold.pk, actor="staff:ria", reason="a farm")
    assert (wallet_fen(who), held_fen(who)) == (100, 0)
    assert ledger.balance_fen(packet.funder_id) == before + 100
    assert ClaimState.objects.get(claim=hold.claim).state == "forfeited"
    assert sound()


def test_forfeited_money_of_a_person_s_own_packet_is_theirs_again() -> None:
    """Not the campaign's: the person who sent the packet had paid for it."""
    _, lane, sender = claims_of_one(20)
    settlement.settle_lane(lane.id)
    wallet = Account.objects.get(kind="wallet", owner=sender.hex())
    rule(most=1)
    _, lane = one_lane(20, funding=Funding(wallet, make_funding().gate))
    friend = b"a friend of hers"
    for serial in range(2):
        make_claims(lane, 1, participants=[friend], serial=serial)
    assert wallet_fen(sender) == 0
    settlement.settle_lane(lane.id)
    hold_forfeit(hold_id=Hold.objects.get().pk, actor="staff:ria", reason="a farm")
    assert (wallet_fen(sender), wallet_fen(friend)) == (100, 100)
    assert sound()


def test_a_decision_is_made_once_and_says_why() -> None:
    _, [hold] = held_hold()
    for reason, code in (("  ", "blank"), ("x" * 201, "too_long")):
        with pytest.raises(ServiceError) as wrong:
            hold_release(hold_id=hold.pk, actor="staff:ria", reason=reason)
        assert (wrong.value.field, wrong.value.code) == ("reason", code)
    hold_forfeit(hold_id=hold.pk, actor="staff:ria", reason="a farm")
    before = picture()
    for again in (hold_release, hold_forfeit):
        with pytest.raises(TransitionRefused) as refused:
            again(hold_id=hold.pk, actor="staff:bob", reason="another look")
        assert refused.value.state == "forfeited"
    assert picture() == before
    assert AuditEvent.objects.filter(action__startswith="hold.").count() == 1


def test_closing_a_packet_returns_what_nobody_claimed_and_nothing_of_a_hold() -> None:
    packet, [hold] = held_hold()
    services.packet_close(packet_id=packet.id, actor="test")
    assert Transfer.objects.get(kind="close").amount_fen == 1_800
    assert (escrow_fen(packet), held_fen(bytes(hold.participant))) == (0, 100)
    assert sound()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE packets_hold SET amount_fen = 1",
        "UPDATE packets_hold SET wallet_id = funder_id",
        "UPDATE packets_hold SET state = 'open', resolved_at = NULL",
        "UPDATE packets_hold SET state = 'released', amount_fen = 1, resolved_at = now()",
        "DELETE FROM packets_hold",
        "UPDATE packets_riskrule SET most = 9",
        "DELETE FROM packets_riskrule",
        "UPDATE packets_holdappeal SET text_encrypted = 'other words'",
        "UPDATE packets_claimstate SET state = 'parked', transfer_id = NULL WHERE state = 'held'",
    ],
)
def test_postgres_refuses_to_rewrite_a_hold(owner_dsn: str, statement: str) -> None:
    _, [hold] = held_hold()
    hold_appeal(hold_id=hold.pk, participant=bytes(hold.participant), text="Why?", actor="x")
    with psycopg.connect(owner_dsn) as owner:
        with pytest.raises(psycopg.errors.IntegrityError):
            owner.execute(statement)
        owner.rollback()


# --- appeals --------------------------------------------------------------------------------------


def test_a_person_says_something_about_it_once() -> None:
    _, [hold] = held_hold()
    who = bytes(hold.participant)
    for _ in range(2):  # the same words again are the same appeal
        hold_appeal(hold_id=hold.pk, participant=who, text="这是我的钱", actor="person:x")
    appeal = HoldAppeal.objects.get()
    assert appeal_text(appeal) == "这是我的钱" and "钱" not in appeal.text_encrypted
    with pytest.raises(TransitionRefused):
        hold_appeal(hold_id=hold.pk, participant=who, text="other words", actor="person:x")
    with pytest.raises(Hold.DoesNotExist):
        hold_appeal(hold_id=hold.pk, participant=b"x" * 16, text="mine", actor="person:y")
    events = AuditEvent.objects.filter(action="hold.appeal")
    assert [event.after for event in events] == [{"chars": 5}]


def test_what_is_decided_is_not_appealed() -> None:
    _, [hold] = held_hold()
    hold_release(hold_id=hold.pk, actor="staff:ria", reason="fine")
    with pytest.raises(TransitionRefused):
        hold_appeal(
            hold_id=hold.pk, participant=bytes(hold.participant), text="Why?", actor="person:x"
        )
    assert not HoldAppeal.objects.exists()


# --- the rules as staff write them ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"most": 0}, "most"),
        ({"most": 2**53}, "most"),
        ({"most": 1_000}, "most"),  # of claims no more are looked at
        ({"window_s": 0}, "window_s"),
        ({"window_s": 32 * 86_400}, "window_s"),
        ({"kind": "phase_of_the_moon"}, "kind"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(wrong: dict[str, Any], field: str) -> None:
    fields = {"kind": Kind.CLAIMS_PER_PERSON, "most": 3, "window_s": 60, **wrong}
    with pytest.raises(ServiceError) as refused:
        editing.rule_set(wanted=editing.Wanted(**fields), actor="x")
    assert refused.value.field == field
    assert not RiskRule.objects.exists()


def test_of_two_changes_of_one_version_one_is_refused() -> None:
    made = rule()
    wanted = editing.Wanted(kind=made.kind, most=3, window_s=60)
    editing.rule_set(wanted=wanted, actor="staff:ann", after=made)
    with pytest.raises(ServiceError) as refused:
        editing.rule_set(wanted=wanted, actor="staff:bob", after=made)
    assert refused.value.code == "changed_meanwhile"
    assert [row.changed_by for row in RiskRule.objects.order_by("version")] == [
        "staff:ria", "staff:ann",
    ]  # fmt: skip
    assert AuditEvent.objects.filter(action="risk_rule.set").count() == 2


def test_a_dry_run_says_what_settlement_would_do() -> None:
    packet = make_packet(count=40)
    lane = packet.lanes.get()
    crowd = [bytes(claim.participant) for claim in make_claims(lane, 4)]
    for serial in range(1, 4):
        make_claims(lane, 2, participants=crowd[:2], serial=serial)
    wanted = editing.Wanted(kind=Kind.CLAIMS_PER_PERSON, most=2, window_s=600)

    run = editing.dry_run(wanted)

    assert (run.claims, run.held_claims, run.held_fen, run.held_people) == (10, 4, 400, 2)
    assert {who for who, _, _ in run.most} == set(crowd[:2])
    editing.rule_set(wanted=wanted, actor="x")
    done = settlement.settle_lane(lane.id)
    assert (done.settled, done.held) == (6, 4)
    assert editing.dry_run(wanted, claims=1).claims == 1


# --- withdrawals ask too --------------------------------------------------------------------------


def reasons(name: str, fen: int = 100, payee: str = "one account") -> list[str]:
    with transaction.atomic():
        return [str(one) for one in rules.payout_reasons(person(name).participant, payee, fen)]


def test_many_wallets_paying_out_to_one_account_wait_for_a_person(superuser_dsn: str) -> None:
    rule(Kind.WALLETS_PER_PAYEE, most=2, window_s=3_600)
    account = provider_account()
    made = [payout_of(account, name, payee_hash="one account") for name in ("ann", "bob")]
    payout_of(account, "cem", payee_hash="another")
    # One's own second withdrawal is no further wallet.
    assert reasons("ann") == reasons("cem", payee="another") == []
    assert reasons("dan") == ["wallets_per_payee"]
    # What is long ago is no rush.
    with psycopg.connect(superuser_dsn) as link:
        link.execute("SET session_replication_role = replica")
        link.execute(
            "UPDATE packets_payout SET created_at = created_at - interval '2 hours' WHERE id = %s",
            [made[0].pk],
        )
    assert reasons("dan") == []


def test_more_money_to_one_account_than_usual_waits_for_a_person() -> None:
    rule(Kind.AMOUNT_PER_PAYEE, most=1_000)
    rule(most=1)  # not asked here
    payout_of(provider_account(), "ann", 600, payee_hash="one account")
    assert reasons("ann", 400) == []
    assert reasons("ann", 401) == reasons("bob", 401) == ["amount_per_payee"]
