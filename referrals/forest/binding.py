"""Binding: a friend becomes somebody's invitee, once, and the campaign's edges stay a forest.

A person without a referral is the top of a tree (`root`). Binding hangs the tree of which the
friend is the top under the inviter; that closes a circle exactly when the inviter stands in it,
that is, when the friend is the top of the inviter's tree.

Under concurrency: whoever is to be bound is locked exclusively, the top of the inviter's tree is
locked shared, both by key order, and the top is looked up again once they are locked. While we hold
the top shared nobody can bind it, so it stays the top; any number of friends join one tree at once.

`root` and `depth` of a row are those of the moment it was bound, and never change. A top that is
bound later takes its tree with it: the true top is found by following `root` to a row of its own,
one jump for each such event, and depths add up along the jumps.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from enum import StrEnum

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from campaign.models import Campaign, CampaignGrowth, Vehicle
from packets.models import Claim
from referrals.forest.bans import bans_wait, is_banned
from referrals.linking import clicks, codes
from referrals.linking.spread import spread_of
from referrals.models import CircleTry, Referral, ShareLink, Visit

# Tries until the top of the inviter's tree stands still; each fails only because somebody bound it.
ATTEMPTS = 20
# Jumps from top to top; a tree is hung under another once for each. People who have piled up more
# of them than this did nothing else; whoever would join them is refused, since the top isn't known.
MAX_JUMPS = 10_000


class BindResult(StrEnum):
    """The closed set of the API."""

    BOUND = "bound"
    ALREADY_BOUND = "already_bound"
    SELF = "self"
    CYCLE = "cycle"
    NOT_NEW = "not_new"
    EXPIRED = "expired"
    UNKNOWN_CODE = "unknown_code"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Touch:
    """What led the friend here: a link, the click where there was one, and how long ago."""

    link: ShareLink
    source: Referral.Source
    click_id: uuid.UUID | None = None
    age: dt.timedelta = dt.timedelta(0)


@dataclass(frozen=True, slots=True)
class Top:
    """The top of a person's tree, and how far above them it is."""

    person: bytes
    depth: int


class ForestBusy(Exception):
    """The tree's top moved under every try; ask again."""


class TooManyJumps(Exception):
    """The top is further away than anybody looks."""


def touch_of_code(growth: CampaignGrowth, typed: str) -> Touch | BindResult:
    """Typed just now. Where the channel's texts are switched off the code is as good as unknown."""
    code = codes.canonical(typed)
    link = _link(growth, code=code) if code else None
    spread = spread_of(growth.campaign_id) if link else None
    if link is None or spread is None or not spread.is_on(link.channel, Vehicle.TEXT):
        return BindResult.UNKNOWN_CODE
    return Touch(link, Referral.Source.CODE)


def touch_of_click(growth: CampaignGrowth, token: str) -> Touch | BindResult:
    """The visit behind a click token, if it is young enough by Postgres's clock."""
    click = clicks.read(token)
    visit = (
        Visit.objects.filter(click_id=click.id)
        .annotate(age=Now() - F("at"))
        .select_related("link")
        .first()
        if click
        else None
    )
    if visit is None or visit.link.campaign_id != growth.campaign_id or visit.link.revoked_at:
        return BindResult.UNKNOWN_CODE
    age: dt.timedelta = visit.age
    if age.total_seconds() > growth.window_s:
        return BindResult.EXPIRED
    return Touch(visit.link, Referral.Source.CLICK, visit.click_id, age)


def _link(growth: CampaignGrowth, code: str) -> ShareLink | None:
    return ShareLink.objects.filter(
        code=code, campaign_id=growth.campaign_id, revoked_at=None
    ).first()


def referral_bind(
    *,
    growth: CampaignGrowth,
    invitee: bytes,
    client_app_id: int,
    touch: Touch,
    is_new: bool | None = None,
) -> BindResult:
    """Bind this person as the invitee of the touch's owner, or say why not. Repeats say
    `already_bound`. Raises ForestBusy where nothing was decided."""
    campaign, inviter = growth.campaign, bytes(touch.link.participant)
    if _bound(campaign, invitee):
        return BindResult.ALREADY_BOUND
    if inviter == invitee:
        return BindResult.SELF
    if not growth.is_on or campaign.state not in _joinable(touch.source):
        return BindResult.EXPIRED
    if touch.link.client_app_id != client_app_id:
        return BindResult.UNKNOWN_CODE
    if growth.new_only and not _is_new(invitee, is_new):
        return BindResult.NOT_NEW
    try:
        result = _bind(campaign, invitee, inviter, client_app_id, touch)
    except TooManyJumps:
        return BindResult.BLOCKED
    if result is BindResult.CYCLE:
        tried = CircleTry(campaign=campaign, invitee=invitee, inviter=inviter)
        CircleTry.objects.bulk_create([tried], ignore_conflicts=True)
    return result


def _joinable(source: Referral.Source) -> tuple[Campaign.State, ...]:
    """Whoever has won with a code did so while the campaign was live: only the binding is late."""
    state = Campaign.State
    claimed = source is Referral.Source.CLAIM
    return (state.LIVE, state.PAUSED, state.ENDED) if claimed else (state.LIVE,)


def _is_new(invitee: bytes, said: bool | None) -> bool:
    """What the app's token says; where it says nothing, somebody who has never won anything."""
    if said is not None:
        return said
    return not Claim.objects.filter(participant=invitee).exists()


def _bind(
    campaign: Campaign, invitee: bytes, inviter: bytes, client_app_id: int, touch: Touch
) -> BindResult:
    for _ in range(ATTEMPTS):
        with transaction.atomic():
            top = top_of(campaign.pk, inviter)
            # guard:walk begin
            if top.person == invitee:
                return BindResult.CYCLE
            _lock(campaign.pk, exclusive=invitee, shared=top.person)
            if top_of(campaign.pk, inviter) != top:
                # Somebody bound the top meanwhile. Rolling back gives the locks back.
                transaction.set_rollback(True)
                continue
            # guard:walk end
            if _bound(campaign, invitee):
                return BindResult.ALREADY_BOUND
            return _write(campaign, invitee, inviter, client_app_id, touch)
    raise ForestBusy


def _write(
    campaign: Campaign, invitee: bytes, inviter: bytes, client_app_id: int, touch: Touch
) -> BindResult:
    if touch.click_id and Referral.objects.filter(click_id=touch.click_id).exists():
        return BindResult.EXPIRED  # used up by another friend
    bans_wait()
    if is_banned(campaign.pk, invitee, inviter):
        return BindResult.BLOCKED
    parent = Referral.objects.filter(campaign=campaign, invitee=inviter).first()
    Referral.objects.bulk_create(
        [
            Referral(
                campaign=campaign,
                client_app_id=client_app_id,
                invitee=invitee,
                inviter=inviter,
                link=touch.link,
                parent=parent,
                # As of now, for ever; see the module's words.
                root=bytes(parent.root) if parent else inviter,
                depth=parent.depth + 1 if parent else 1,
                source=touch.source,
                click_id=touch.click_id,
            )
        ],
        # Of the click: two friends with one token at once; the second's row isn't written.
        ignore_conflicts=True,
    )
    return BindResult.BOUND if _bound(campaign, invitee) else BindResult.EXPIRED


def _bound(campaign: Campaign, invitee: bytes) -> bool:
    return Referral.objects.filter(campaign=campaign, invitee=invitee).exists()


_TOP = """
WITH RECURSIVE jump (person, depth, turn) AS (
    SELECT %(person)s::bytea, 0, 0
    UNION ALL
    SELECT edge.root, jump.depth + edge.depth, jump.turn + 1
      FROM jump JOIN referrals_referral AS edge
        ON edge.campaign_id = %(campaign)s AND edge.invitee = jump.person
     WHERE jump.turn < %(most)s
)
SELECT person, depth, turn FROM jump ORDER BY turn DESC LIMIT 1
"""


def top_of(campaign_id: uuid.UUID, person: bytes) -> Top:
    """The person at the top of this one's tree now (themselves, where nobody invited them).

    Raises TooManyJumps."""
    with connection.cursor() as cursor:
        cursor.execute(_TOP, {"person": person, "campaign": campaign_id, "most": MAX_JUMPS})
        top, depth, turn = cursor.fetchone()
    if turn == MAX_JUMPS:
        raise TooManyJumps
    return Top(bytes(top), depth)


def _lock(campaign_id: uuid.UUID, *, exclusive: bytes, shared: bytes) -> None:
    """Both until the transaction's end, in key order, so that two binds never wait for each
    other in a circle."""
    wanted = sorted(
        [
            (f"forest:{campaign_id.hex}:{exclusive.hex()}", "pg_advisory_xact_lock"),
            (f"forest:{campaign_id.hex}:{shared.hex()}", "pg_advisory_xact_lock_shared"),
        ]
    )
    with connection.cursor() as cursor:
        for key, function in wanted:
            cursor.execute(f"SELECT {function}(hashtextextended(%s, 0))", [key])
