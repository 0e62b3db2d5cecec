"""A reward's money waits once, however many want it to: bans, and cases of risk.

Whoever wants to hold it has the person alone, and looks whether another of them has it already, or
has seen it forfeited, and how much of what was won in the campaign isn't held: more than that would
be other money of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Q

from packets.holds.holding import hold_wallet
from packets.holds.rules import RiskReason
from packets.models import Hold
from packets.wallets import one_at_a_time
from referrals.models import Reward
from referrals.risk.wallets import holdable_fen

_ENDED_AS = """EXISTS (
    SELECT FROM packets_hold AS taken
     WHERE taken.state = '{state}' AND taken.id IN (
           SELECT hold_id FROM referrals_banreward WHERE reward_id = reward.id
            UNION ALL
           SELECT hold_id FROM referrals_riskreward WHERE reward_id = reward.id))"""
# SQL about `reward`: somebody holds it now; nothing of it is left to hold.
IS_HELD = _ENDED_AS.format(state=Hold.State.OPEN)
IS_FORFEITED = _ENDED_AS.format(state=Hold.State.FORFEITED)


class HeldAlready(Exception):
    """Its money waits for a decision, or was forfeited. Look again later."""


def reward_freeze(
    *,
    reward: Reward,
    reasons: Sequence[RiskReason],
    actor: str,
    reason: str,
    evidence: Sequence[Mapping[str, Any]] = (),
) -> Hold | None:
    """Hold a settled reward, up to what is available; None: there was nothing. Raises HeldAlready.

    Within the caller's transaction, which writes down whose hold it is.
    """
    person = bytes(reward.participant)
    one_at_a_time(person)
    if _is_taken(reward):
        raise HeldAlready
    claim = reward.claim
    assert claim is not None
    amount_fen = min(claim.amount_fen, holdable_fen(person, reward.referral.campaign))
    if not amount_fen:
        return None
    return hold_wallet(
        participant=person,
        amount_fen=amount_fen,
        funder_id=claim.packet.funder_id,
        reasons=reasons,
        evidence=evidence,
        actor=actor,
        reason=reason,
        currency=claim.packet.currency,
    )


def _is_taken(reward: Reward) -> bool:
    taken = Hold.objects.filter(state__in=[Hold.State.OPEN, Hold.State.FORFEITED])
    return taken.filter(Q(ban__reward=reward) | Q(risk__reward=reward)).exists()
