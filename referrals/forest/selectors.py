"""Reads of the forest. Whoever asks for a person's rows passes that person.

Upward by the index of an invitee's row, one edge a step; downward by the index of an inviter's
rows. Depths are counted here, from the edges: those in the rows are of the moment of binding.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import QuerySet

from packets.models import Participant
from packets.selectors import masked
from referrals.models import Referral, Reward

# Steps upward from one person; a longer line than this is nobody's doing but a generator's.
MAX_ANCESTORS = 10_000


@dataclass(frozen=True, slots=True)
class Earned:
    """A reward as the one sees it who earned it. `claim_state`: of ClaimState; None: committed."""

    state: str
    claim: uuid.UUID | None
    amount_fen: int | None
    currency: str | None
    claim_state: str | None
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Friend:
    """A friend as the inviter sees them: masked."""

    id: int
    campaign: str
    channel: str
    who: str
    bound_at: dt.datetime
    rewards: tuple[Earned, ...]


@dataclass(frozen=True, slots=True)
class Level:
    """How many people stand so many steps below somebody."""

    depth: int
    people: int


def referrals_by(inviter: bytes) -> QuerySet[Referral]:
    """Whom this person has invited, in any campaign."""
    return Referral.objects.filter(inviter=inviter).select_related("campaign", "link")


def friends(referrals: Sequence[Referral], inviter: bytes) -> list[Friend]:
    """A page of `referrals_by`, with what was earned by each: three queries for all."""
    people = Participant.objects.filter(digest__in=[row.invitee for row in referrals])
    names = {bytes(digest): name for digest, name in people.values_list("digest", "subject")}
    earned: dict[int, list[Earned]] = {}
    rewards = Reward.objects.filter(
        referral__in=[row.pk for row in referrals], participant=inviter
    ).select_related("claim__packet", "claim__state")
    for reward in rewards.order_by("id"):
        earned.setdefault(reward.referral_id, []).append(_earned(reward))
    return [
        Friend(
            id=row.pk,
            campaign=row.campaign.slug,
            channel=row.link.channel,
            who=masked(names.get(bytes(row.invitee), "*")),
            bound_at=row.bound_at,
            rewards=tuple(earned.get(row.pk, ())),
        )
        for row in referrals
    ]


def _earned(reward: Reward) -> Earned:
    claim = reward.claim
    state = getattr(claim, "state", None)
    return Earned(
        state=reward.state,
        claim=claim.pk if claim else None,
        amount_fen=claim.amount_fen if claim else None,
        currency=claim.packet.currency if claim else None,
        claim_state=state.state if state else None,
        at=reward.at,
    )


_ANCESTORS = """
WITH RECURSIVE above (person, step) AS (
    SELECT edge.inviter, 1 FROM referrals_referral AS edge
     WHERE edge.campaign_id = %(campaign)s AND edge.invitee = %(person)s
    UNION ALL
    SELECT edge.inviter, above.step + 1
      FROM above JOIN referrals_referral AS edge
        ON edge.campaign_id = %(campaign)s AND edge.invitee = above.person
     WHERE above.step < %(most)s
)
SELECT person FROM above ORDER BY step
"""


def ancestors(campaign_id: uuid.UUID, person: bytes, most: int = MAX_ANCESTORS) -> list[bytes]:
    """Who invited this person, who invited them, and so on up to the top."""
    with connection.cursor() as cursor:
        cursor.execute(_ANCESTORS, {"campaign": campaign_id, "person": person, "most": most})
        return [bytes(row[0]) for row in cursor.fetchall()]


_BELOW = """
WITH RECURSIVE below (person, depth) AS (
    SELECT %(person)s::bytea, 0
    UNION ALL
    SELECT edge.invitee, below.depth + 1
      FROM below JOIN referrals_referral AS edge
        ON edge.campaign_id = %(campaign)s AND edge.inviter = below.person
     WHERE below.depth < %(most)s
)
SELECT depth, count(*) FROM below WHERE depth > 0 GROUP BY depth ORDER BY depth
"""


def levels(campaign_id: uuid.UUID, person: bytes, most: int = MAX_ANCESTORS) -> list[Level]:
    """How many people stand 1, 2, 3, … steps below this person."""
    with connection.cursor() as cursor:
        cursor.execute(_BELOW, {"campaign": campaign_id, "person": person, "most": most})
        return [Level(depth, people) for depth, people in cursor.fetchall()]
