"""What the tests of held money share: a rule, one person with many claims, holds of them."""

from __future__ import annotations

from packets import selectors, settlement
from packets.holds import editing, holding
from packets.holds.rules import RiskReason
from packets.invariants import invariants_check
from packets.models import Hold, Lane, Packet, RiskRule
from tests.factories import make_claims
from tests.packets.settling import one_lane

Kind = RiskRule.Kind


def rule(kind: Kind = Kind.CLAIMS_PER_PERSON, most: int = 2, window_s: int = 3_600) -> RiskRule:
    wanted = editing.Wanted(kind=kind, most=most, window_s=window_s)
    return editing.rule_set(wanted=wanted, actor="staff:ria")


def claims_of_one(n: int) -> tuple[Packet, Lane, bytes]:
    """A packet of which one person has claimed `n` portions of 100 fen, one after the other."""
    packet, lane = one_lane(20)
    [claim] = make_claims(lane, 1)
    who = bytes(claim.participant)
    for serial in range(1, n):
        make_claims(lane, 1, participants=[who], serial=serial)
    return packet, lane, who


def held_fen(participant: bytes) -> int:
    return selectors.wallet_balance(participant).held_fen


def held_hold(n: int = 1) -> tuple[Packet, list[Hold]]:
    """`n` open holds of one person, each of 100 fen."""
    rule(most=1)
    packet, lane, _ = claims_of_one(n + 1)
    settlement.settle_lane(lane.id)
    return packet, list(Hold.objects.order_by("claim__position"))


def freeze(who: bytes, fen: int, funder: int) -> Hold | None:
    return holding.hold_wallet(
        participant=who,
        amount_fen=fen,
        funder_id=funder,
        reasons=[RiskReason.STAFF],
        actor="staff:ria",
        reason="a farm",
    )


def sound() -> bool:
    report = invariants_check()
    broken = [(check.name, check.detail) for check in report.checks if check.value]
    assert broken == []
    return report.holds
