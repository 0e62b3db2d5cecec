"""Granting a reward: a ticket, a claim, a row; once per referral and side, whoever repeats.

    1  admitted: under the person's lock, the cap looks at what they were admitted to, and the
       ticket `laisee:reward:<referral>:<side>` is issued in the same transaction. The ticket is
       the admission: it survives whatever dies, and there is one by that key.
    2  claimed: through the claim's own flow, so a reward obeys the packet's cap, its lanes and its
       gates like every claim. The ticket's serial is the claim's; repeating finds the claim.
    3  written: Reward (unique per referral and side, insert-only) with the claim, and in the same
       transaction the event for the app.

A worker that dies after any of these is repeated from the start and comes to the same end. No
reward is paid from anything but a packet, so the budget is the packet's total, to the fen.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from django.db import connection, transaction

from campaign.models import CampaignGrowth
from engine.lib.auth import Caller
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.ids import claim_id
from engine.lib.outbox import EventKind, outbox_emit
from packets.claiming import flow
from packets.claiming.effects import ClaimRequest, Outcome, Result, Unavailable
from packets.claiming.limits import OverLimit, Subject
from packets.claiming.registry import registry
from packets.claiming.sync import SyncDriver, password_key, ticket_keys
from packets.models import Claim, Packet, Participant, Ticket
from packets.tickets import OWN_KEYS, ticket_issue
from referrals.forest.bans import bans_wake, is_banned
from referrals.models import Referral, Reward
from referrals.risk.standing import why_waiting

Side: TypeAlias = Reward.Side
State: TypeAlias = Reward.State
# Sides that are paid for having invited: the campaign's cap counts them together.
INVITING = (Side.INVITER, Side.ANCESTOR)
# A reward comes from no network: limits about one don't speak of it.
OF_NETWORKS = frozenset({Subject.IP, Subject.SUBNET})


@dataclass(frozen=True, slots=True)
class Share:
    """What one side of a referral is to get, and from which packet."""

    referral: Referral
    side: Side
    participant: bytes
    packet: Packet
    cap: int | None

    @property
    def key(self) -> str:
        return f"{OWN_KEYS}reward:{self.referral.pk}:{self.side}"


class NotYet(Exception):
    """Nothing is decided; ask again later. Says why, for staff."""


def shares_of(referral: Referral, growth: CampaignGrowth) -> list[Share]:
    """Who gets something, as the campaign stands; no further up than its depth."""
    shares = []
    if growth.invitee_packet is not None:
        invitee = bytes(referral.invitee)
        shares.append(Share(referral, Side.INVITEE, invitee, growth.invitee_packet, None))
    packet, cap = growth.inviter_packet, growth.inviter_cap
    if packet is not None:
        shares.append(Share(referral, Side.INVITER, bytes(referral.inviter), packet, cap))
        if growth.depth > 1:
            above = Referral.objects.filter(
                campaign=referral.campaign_id, invitee=referral.inviter
            ).first()
            if above is not None:
                shares.append(Share(referral, Side.ANCESTOR, bytes(above.inviter), packet, cap))
    return shares


def reward_grant(*, share: Share, qualified_by: str) -> Reward:
    """The reward of this side, granted or refused for good. Raises NotYet."""
    known = Reward.objects.filter(referral=share.referral, side=share.side).first()
    if known is not None:
        return known
    person = Participant.objects.filter(digest=share.participant).first()
    if person is None:
        raise NotYet("the person's name isn't known yet")
    admitted = Ticket.objects.filter(client_app_id=person.client_app_id, key=share.key).first()
    waits = _why_waiting(share)
    if waits and not _is_claimed(admitted):
        raise NotYet(waits)  # due again, and granted if the ban is lifted, or the person let go
    if admitted is not None:
        # To that packet, also where the campaign names another by now.
        share = dataclasses.replace(share, packet=admitted.packet)
    ticket = _admit(share, person)
    if isinstance(ticket, State):
        return _write(share, ticket, qualified_by)
    outcome = _claim(share, person, ticket)
    state = _judge(outcome)
    return _write(share, state, qualified_by, outcome, person)


def _is_claimed(admitted: Ticket | None) -> bool:
    """Whether the money is on its way, and only the row is missing that a ban goes by."""
    if admitted is None:
        return False
    made = claim_id(admitted.packet_id, bytes(admitted.participant), admitted.serial)
    return Claim.objects.filter(pk=made).exists()


def _why_waiting(share: Share) -> str:
    """Why this person is granted nothing just now; empty: they may be."""
    campaign_id, participant = share.referral.campaign_id, share.participant
    if is_banned(campaign_id, participant):
        return "the person is banned"
    decision = why_waiting(campaign_id, participant)
    return f"risk: {decision}" if decision else ""


def _admit(share: Share, person: Participant) -> str | State:
    """The ticket's text, or why there is none for good."""
    with transaction.atomic():
        _alone(share)
        if share.cap is not None and _admitted(share) >= share.cap:
            return State.CAPPED
        try:
            with transaction.atomic():
                return ticket_issue(
                    packet_id=share.packet.pk,
                    client_app_id=person.client_app_id,
                    subject=person.subject,
                    key=share.key,
                    reason=f"reward: {share.side}",
                )
        except TransitionRefused:
            return State.ENDED
        except ServiceError as refusal:
            if refusal.code == "too_many":
                return State.CAPPED
            raise NotYet(f"{refusal.field}: {refusal.code}") from refusal


def _alone(share: Share) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"reward:{share.referral.campaign_id.hex}:{share.participant.hex()}"],
        )


_ADMITTED = """
SELECT count(*) FROM packets_ticket AS ticket
  JOIN campaign_campaignpacket AS link ON link.packet_id = ticket.packet_id
 WHERE ticket.participant = %(person)s AND link.campaign_id = %(campaign)s
   AND ticket.key LIKE %(ours)s AND ticket.key <> %(this)s
   AND (ticket.key LIKE %(inviter)s OR ticket.key LIKE %(ancestor)s)
   AND NOT EXISTS (
       SELECT FROM referrals_reward AS lost
        WHERE lost.referral_id = split_part(ticket.key, ':', 3)::bigint
          AND lost.side = split_part(ticket.key, ':', 4) AND lost.claim_id IS NULL)
"""


def _admitted(share: Share) -> int:
    """To how many other rewards for inviting the person was admitted and hasn't lost again."""
    with connection.cursor() as cursor:
        cursor.execute(
            _ADMITTED,
            {
                "person": share.participant,
                "campaign": share.referral.campaign_id,
                "this": share.key,
                "ours": f"{OWN_KEYS}reward:%",
                "inviter": f"%:{Side.INVITER}",
                "ancestor": f"%:{Side.ANCESTOR}",
            },
        )
        return int(cursor.fetchone()[0])


def _claim(share: Share, person: Participant, ticket: str) -> Outcome:
    """The claim that the ticket makes, or made. Raises NotYet."""
    caller = Caller(
        client_app_id=person.client_app_id,
        subject=person.subject,
        participant=share.participant,
    )
    try:
        view = registry.view(share.packet.pk)
        if view is None:
            raise NotYet("the packet isn't there")
        limits = tuple(rule for rule in view.limits if rule.subject not in OF_NETWORKS)
        steps = flow.claim(
            dataclasses.replace(view, limits=limits),
            caller,
            ClaimRequest(ticket=ticket),
            password_key(),
            ticket_keys(),
        )
        return SyncDriver().run(steps)
    except Unavailable as trouble:
        raise NotYet(f"unavailable: {trouble.what}") from trouble
    except OverLimit as refusal:
        raise NotYet("over a limit") from refusal


def _judge(outcome: Outcome) -> State:
    """What the claim's answer makes of the reward. Raises NotYet."""
    if outcome.test:
        return State.REFUSED  # a test user: nothing that they hear is true
    match outcome.result:
        case Result.WON:
            return State.GRANTED
        case Result.SOLD_OUT:
            return State.SOLD_OUT
        case Result.ENDED:
            return State.ENDED
        case Result.NOT_ELIGIBLE | Result.WRONG_PASSWORD:
            return State.REFUSED
        case (
            Result.BUSY
            | Result.PAUSED
            | Result.NOT_STARTED
            | Result.BLOCKED
            | Result.TICKET_REQUIRED
            | Result.TICKET_USED
        ):
            raise NotYet(f"the claim says {outcome.result}")
        case unknown:
            assert_never(unknown)


def _write(
    share: Share,
    state: State,
    qualified_by: str,
    outcome: Outcome | None = None,
    person: Participant | None = None,
) -> Reward:
    """Write it down once, and tell the app of money that was granted."""
    granted = state is State.GRANTED
    claimed = outcome.claim if outcome is not None and granted else None
    with transaction.atomic():
        if granted:
            bans_wake(share.referral.campaign_id, share.participant)
        Reward.objects.bulk_create(
            [
                Reward(
                    referral=share.referral,
                    side=share.side,
                    participant=share.participant,
                    state=state,
                    claim_id=claimed.id if claimed else None,
                    qualified_by=qualified_by,
                )
            ],
            ignore_conflicts=True,
        )
        written = Reward.objects.get(referral=share.referral, side=share.side)
        if claimed is not None and person is not None:
            outbox_emit(
                EventKind.REWARD_GRANTED,
                person.client_app_id,
                _payload(share, person, Claim.objects.get(pk=claimed.id)),
                key=f"{share.referral.pk}:{share.side}",
            )
    return written


def _payload(share: Share, person: Participant, claim: Claim) -> dict[str, Any]:
    return {
        "claim": claim.pk.hex,
        "packet": share.packet.public_id,
        "user": person.subject,
        "amount_fen": claim.amount_fen,
        "currency": share.packet.currency,
    }
