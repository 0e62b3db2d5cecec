"""The checks about held money turn red when exactly what they guard is corrupted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from packets import settlement
from packets.holds import editing, holding
from packets.holds.resolving import hold_forfeit, hold_release
from packets.holds.rules import RiskReason
from packets.models import Hold, RiskRule
from tests.factories import make_claims
from tests.packets.settling import one_lane
from tests.packets.test_invariants import audit_money
from tests.packets.test_invariants import corrupt as corrupt

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def story() -> None:
    """One person's five claims: one paid, two held, one released, one forfeited; and a wallet's."""
    editing.rule_set(
        wanted=editing.Wanted(kind=RiskRule.Kind.CLAIMS_PER_PERSON, most=1, window_s=3_600),
        actor="staff:ria",
    )
    packet, lane = one_lane(10)
    [claim] = make_claims(lane, 1)
    who = bytes(claim.participant)
    for serial in range(1, 5):
        make_claims(lane, 1, participants=[who], serial=serial)
    settlement.settle_lane(lane.id)
    _, _, third, fourth = Hold.objects.order_by("claim__position")
    hold_release(hold_id=third.pk, actor="staff:ria", reason="fine")
    hold_forfeit(hold_id=fourth.pk, actor="staff:ria", reason="a farm")
    holding.hold_wallet(
        participant=who,
        amount_fen=30,
        funder_id=packet.funder_id,
        reasons=[RiskReason.STAFF],
        actor="staff:ria",
        reason="a closer look",
    )


HELD = "(SELECT min(transfer_id) FROM packets_claimstate WHERE state = 'held')"
OPEN = "(SELECT id FROM packets_hold WHERE state = 'open' AND claim_id IS NOT NULL LIMIT 1)"
RELEASED = "(SELECT id FROM packets_hold WHERE state = 'released')"

# name → (statements, every check that turns red)
CORRUPTIONS: dict[str, tuple[list[str], set[str]]] = {
    "held_claims": (
        ["UPDATE packets_claimstate SET state = 'held' WHERE state = 'forfeited'"],
        {"held_claims"},
    ),
    "holds_begun": (
        [f"UPDATE packets_hold SET claim_id = NULL WHERE id = {RELEASED}"],
        {"holds_begun", "settled_paid"},
    ),
    "holds_ended": (
        ["UPDATE packets_transfer SET kind = 'forfeit' WHERE kind = 'release'"],
        {"holds_ended"},
    ),
    "holds_own": (
        [
            "UPDATE packets_hold SET wallet_id = funder_id WHERE state = 'forfeited'",
        ],
        {"holds_own"},
    ),
    "held_balance": (
        [f"UPDATE packets_hold SET state = 'released', resolved_at = now() WHERE id = {OPEN}"],
        {"held_balance", "holds_ended", "held_claims"},
    ),
}


def test_the_story_is_green(story: None) -> None:
    assert audit_money() == (0, set())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_hold_is_seen(corrupt: Callable[..., None], name: str) -> None:
    statements, broken = CORRUPTIONS[name]
    corrupt(*statements)
    assert audit_money() == (1, broken)
