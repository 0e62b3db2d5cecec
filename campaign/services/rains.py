"""Red-packet rain: rounds of a campaign, each a packet with a window of its own, named together.

A round's times are absolute and stand in its packet; the timetable (first start, interval, length)
only makes them. They are the one thing of a launched campaign that may move: the gala is late. What
is over doesn't move, what runs keeps its start, and no round gets shorter (`packets/windows.py`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from campaign import blueprints, rules
from campaign.convergence import campaign_locked
from campaign.disclosing.publishing import disclosure_publish
from campaign.models import Campaign, CampaignPacket, Disclosure, Rain
from campaign.services import review
from campaign.services.common import EDITABLE, RUNNING, audit, require_state, touched
from campaign.services.drafts import packet_attach
from engine.lib.clock import rfc3339
from engine.lib.errors import ServiceError
from packets import services as packet_services
from packets.models import Packet

MAX_ROUNDS = 100  # of one rain: they are opened together, and listed on one page
LEAST_LENGTH_S = 5  # a shorter round is over before a phone on a slow line has asked
MOST_INTERVAL_S = 24 * 3600
NAME_MAX_CHARS = 70  # the packet's name has its number behind it


@dataclass(frozen=True)
class Round:
    number: int
    opens_at: dt.datetime
    closes_at: dt.datetime


def rain_timetable(
    *, first_at: dt.datetime, interval_s: int, length_s: int, rounds: int
) -> list[Round]:
    """When each round opens and closes. Pure; ServiceError names the argument that is wrong."""
    for field, value, least, most in (
        ("rounds", rounds, 1, MAX_ROUNDS),
        ("length_s", length_s, LEAST_LENGTH_S, MOST_INTERVAL_S),
        ("interval_s", interval_s, LEAST_LENGTH_S, MOST_INTERVAL_S),
    ):
        if not least <= value <= most:
            raise ServiceError(
                field,
                "out_of_range",
                _("This must lie between %(least)s and %(most)s."),
                least=f"{least:,}",
                most=f"{most:,}",
            )
    if length_s > interval_s:
        raise ServiceError(
            "length_s", "overlaps", _("A round must be over when the next one begins.")
        )
    starts = [first_at + dt.timedelta(seconds=interval_s * number) for number in range(rounds)]
    return [
        Round(number, start, start + dt.timedelta(seconds=length_s))
        for number, start in enumerate(starts, start=1)
    ]


def rain_create(
    *,
    campaign_id: uuid.UUID,
    name_zh: str,
    first_at: dt.datetime,
    interval_s: int,
    length_s: int,
    rounds: int,
    total_fen: int,
    count: int,
    actor: str,
    by: User | None = None,
    name_en: str = "",
    **cut: Any,
) -> Rain:
    """All rounds of a rain, for a campaign that hasn't started; money and portions are a round's.

    `cut` are the rules of each round's packet, as for `campaign_packet_add`.
    """
    for field, name in (("name_zh", name_zh), ("name_en", name_en)):
        if len(name) > NAME_MAX_CHARS or not name.isprintable():
            raise ServiceError(
                field, "format", _("This is 1 to %(most)s printable characters."),
                most=NAME_MAX_CHARS,
            )  # fmt: skip
    if not name_zh.strip():
        raise ServiceError("name_zh", "blank", _("A rain needs a name."))
    table = rain_timetable(
        first_at=first_at, interval_s=interval_s, length_s=length_s, rounds=rounds
    )
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, EDITABLE)
        _check_window(campaign, table[0].opens_at, table[-1].closes_at, "first_at", "rounds")
        rules.check_sum(campaign, extra_fen=total_fen * rounds)
        each = {**cut, "total_fen": total_fen, "count": count}
        rain = _add(
            campaign,
            name_zh,
            name_en,
            [{**each, "opens_at": one.opens_at, "closes_at": one.closes_at} for one in table],
        )
        review.void(campaign, actor=actor, by=by)
        touched(campaign, by)
        audit(
            campaign,
            actor,
            "rain_add",
            after={
                "rain": rain.pk,
                "rounds": rounds,
                "first_at": rfc3339(first_at),
                "interval_s": interval_s,
                "length_s": length_s,
                "total_fen": total_fen,
                "count": count,
            },
        )
    return rain


def rains_unfold(
    *,
    campaign_id: uuid.UUID,
    document: dict[str, Any],
    actor: str,
    by: User | None = None,
) -> None:
    """The rains of a document (`blueprints.py`), for a campaign made from it."""
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, EDITABLE)
        for name_zh, name_en, rounds in blueprints.unfold_rains(document, campaign.starts_at):
            _add(campaign, name_zh, name_en, rounds)
            review.void(campaign, actor=actor, by=by)
            touched(campaign, by)
            audit(campaign, actor, "rain_add", after={"rounds": len(rounds)})


def _add(campaign: Campaign, name_zh: str, name_en: str, rounds: list[dict[str, Any]]) -> Rain:
    """The rain with its packets; `rounds` are these packets' arguments, in order."""
    rain = Rain.objects.create(campaign=campaign, name_zh=name_zh, name_en=name_en)
    for number, fields in enumerate(rounds, start=1):
        cut = {**fields, "name": f"{name_zh} {number}"}
        totals = cut.pop("total_fen"), cut.pop("count")
        window = cut.pop("opens_at"), cut.pop("closes_at")
        packet = packet_attach(campaign, *totals, *window, cut)
        CampaignPacket.objects.filter(packet=packet).update(rain=rain, round=number)
    return rain


def rain_remove(
    *, campaign_id: uuid.UUID, rain_id: int, actor: str, by: User | None = None
) -> None:
    """Take a rain with all its rounds out of a campaign that hasn't started."""
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, EDITABLE)
        rain = Rain.objects.filter(pk=rain_id, campaign=campaign).first()
        if rain is None:
            raise ServiceError("rain", "not_found", _("The campaign has no such rain."))
        packets = list(rain.links.values_list("packet_id", flat=True))
        rain.links.all().delete()
        for packet_id in packets:
            packet_services.packet_discard(packet_id=packet_id)
        rain.delete()
        review.void(campaign, actor=actor, by=by)
        touched(campaign, by)
        audit(campaign, actor, "rain_remove", before={"rain": rain_id, "rounds": len(packets)})


def round_move(
    *,
    campaign_id: uuid.UUID,
    packet_id: uuid.UUID,
    opens_at: dt.datetime,
    closes_at: dt.datetime,
    actor: str,
    reason: str,
    by: User | None = None,
) -> Packet:
    """Another time for a round that isn't over, also after the launch; with a reason.

    Before the launch it is an edit like any other: an approval is void.
    """
    if not reason.strip():
        raise ServiceError("reason", "blank", _("Say why it is moved."))
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, (*EDITABLE, *RUNNING))
        link = _round(campaign, packet_id)
        _check_window(campaign, opens_at, closes_at, "opens_at", "closes_at")
        before = link.packet
        if campaign.state in EDITABLE:
            packet_services.packet_window_set(
                packet_id=packet_id,
                opens_at=opens_at,
                closes_at=closes_at,
                client_apps=before.client_apps,
            )
            review.void(campaign, actor=actor, by=by)
        else:
            packet_services.packet_move(
                packet_id=packet_id,
                opens_at=opens_at,
                closes_at=closes_at,
                actor=actor,
                reason=reason,
            )
            disclosure_publish(campaign=campaign, cause=Disclosure.Cause.ROUND_MOVED)
        touched(campaign, by)
        audit(
            campaign,
            actor,
            "round_move",
            before={
                "round": link.round,
                "opens_at": rfc3339(before.opens_at),
                "closes_at": rfc3339(before.closes_at),
            },
            after={
                "round": link.round,
                "opens_at": rfc3339(opens_at),
                "closes_at": rfc3339(closes_at),
            },
            reason=reason,
        )
    return Packet.objects.get(pk=packet_id)


def _round(campaign: Campaign, packet_id: uuid.UUID) -> CampaignPacket:
    link = (
        campaign.links.select_related("packet").filter(packet=packet_id, rain__isnull=False).first()
    )
    if link is None:
        raise ServiceError("packet", "not_found", _("The campaign has no such round."))
    return link


def _check_window(
    campaign: Campaign,
    opens_at: dt.datetime,
    closes_at: dt.datetime,
    opens_field: str,
    closes_field: str,
) -> None:
    """The campaign's check, whose refusal goes to the field that was typed."""
    try:
        rules.check_packet_window(campaign, opens_at, closes_at)
    except ServiceError as refusal:
        field = opens_field if refusal.field == "opens_at" else closes_field
        raise ServiceError(field, refusal.code, refusal.message) from refusal
