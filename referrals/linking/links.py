"""A person's link into one channel: made once, the same ever after, unless it was revoked.

Who shares pauses between shares as the campaign (or many complaints) wants it; asking is sharing.
A person's shares are judged one after the other, by Postgres's clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Max
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign, Channel, Vehicle
from engine.lib.auth import Caller
from engine.lib.errors import ServiceError
from referrals.forest.bans import is_banned
from referrals.linking import codes
from referrals.linking.complaints import SLOWED_COOLDOWN_S, Mood, mood_now
from referrals.linking.spread import Spread, spread_of
from referrals.models import ShareLink
from referrals.names import name_remember

DRAWS = 5  # a code that is taken is drawn again; one in a million million is, at ten million links


class SharingBlocked(Exception):
    """This person was banned, or their links revoked: they may not share this campaign."""


@dataclass
class SharingPaused(Exception):
    """They have shared just now, and the campaign wants `pause_s` between two shares."""

    retry_after_s: int
    pause_s: int


@dataclass(frozen=True, slots=True)
class Shared:
    link: ShareLink
    vehicles: list[str]  # that are on


def address_of(code: str, vehicle: str = Vehicle.LINK) -> str:
    """Where the link leads; `v` says what carried it."""
    named = "" if vehicle == Vehicle.LINK else f"?v={vehicle}"
    return f"{settings.BASE_URL.rstrip('/')}/s/{code}{named}"


def owner_of(typed: str) -> bytes | None:
    """Whose link this is, however its code was typed; revoked ones too."""
    code = codes.canonical(typed)
    link = ShareLink.objects.filter(code=code).only("participant").first() if code else None
    return bytes(link.participant) if link else None


def link_share(*, campaign: Campaign, caller: Caller, channel: str) -> Shared:
    """The caller's link into this channel. ServiceError, SharingBlocked or SharingPaused."""
    spread = spread_of(campaign.pk)
    if spread is None or not spread.is_open:
        raise ServiceError("", "sharing_off", _("This campaign can't be shared now."))
    vehicles = spread.ways(channel)
    if not vehicles:
        raise ServiceError("channel", "channel_off", _("This channel is switched off."))
    mood = mood_now(spread.growth)
    if mood is Mood.STOPPED:
        raise ServiceError("", "sharing_stopped", _("Too many people complained about sharing."))
    with transaction.atomic():
        _one_after_the_other(campaign, caller)
        _refuse_blocked(campaign, caller)
        _pause(spread, caller, slowed=mood is Mood.SLOWED)
        name_remember(caller)
        return Shared(_link(campaign, caller, channel), vehicles)


def _one_after_the_other(campaign: Campaign, caller: Caller) -> None:
    key = f"share:{campaign.pk.hex}:{caller.participant.hex()}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])


def _refuse_blocked(campaign: Campaign, caller: Caller) -> None:
    revoked = ShareLink.objects.filter(
        campaign=campaign, participant=caller.participant, revoked_at__isnull=False
    )
    if revoked.exists() or is_banned(campaign.pk, caller.participant):
        raise SharingBlocked


def _pause(spread: Spread, caller: Caller, *, slowed: bool) -> None:
    pause_s = max(spread.growth.share_cooldown_s, SLOWED_COOLDOWN_S if slowed else 0)
    if not pause_s:
        return
    shares = ShareLink.objects.filter(campaign=spread.campaign, participant=caller.participant)
    newest = shares.aggregate(age=Now() - Max("shared_at"))["age"]
    if newest is not None and newest.total_seconds() < pause_s:
        raise SharingPaused(max(1, math.ceil(pause_s - newest.total_seconds())), pause_s)


def _link(campaign: Campaign, caller: Caller, channel: str) -> ShareLink:
    mine = ShareLink.objects.filter(
        campaign=campaign, participant=caller.participant, channel=channel
    )
    if mine.update(shared_at=Now()):
        return mine.get()
    for _draw in range(DRAWS):
        try:
            with transaction.atomic():
                return ShareLink.objects.create(
                    campaign=campaign,
                    participant=caller.participant,
                    client_app_id=caller.client_app_id,
                    channel=Channel(channel),
                    code=codes.draw(),
                )
        except IntegrityError:
            continue  # the code is taken
    raise RuntimeError("no free code was drawn")
