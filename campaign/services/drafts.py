"""Writing a campaign down, and changing what isn't running yet.

Invariant kept here: what the packets of a campaign may give away never exceeds its budget (refused
here with words; made impossible by the ledger account that can't be overdrawn). Every change of a
campaign that was handed in or approved takes it back to a draft (`review.void`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext_lazy as _

from campaign import growth_rules, rules
from campaign.convergence import campaign_locked
from campaign.models import TEXTS, Campaign, CampaignPacket
from campaign.services import review
from campaign.services.common import EDITABLE, audit, require_state, require_version, touched
from engine.lib import crypto
from engine.lib.errors import ServiceError
from engine.lib.money import CURRENCY
from packets import ledger
from packets import services as packet_services
from packets.models import Account, Packet

# A campaign's packets are all opened and closed by one worker's loop, and listed on one page.
MAX_PACKETS_PER_CAMPAIGN = 200


# --- Making one ----------------------------------------------------------------------------------


def campaign_create(
    *,
    slug: str,
    name_zh: str,
    budget_fen: int,
    starts_at: dt.datetime,
    ends_at: dt.datetime,
    client_apps: Iterable[int],
    actor: str,
    name_en: str = "",
    rules_zh: str = "",
    rules_en: str = "",
    odds_zh: str = "",
    odds_en: str = "",
    organiser_zh: str = "",
    organiser_en: str = "",
    contact_zh: str = "",
    contact_en: str = "",
    timezone_name: str = "Asia/Shanghai",
    created_by: User | None = None,
) -> Campaign:
    """A draft with an empty account and a closed-for-now gate; nothing of it can be claimed yet."""
    apps = sorted(set(client_apps))
    rules.check_campaign(
        slug=slug,
        name_zh=name_zh,
        budget_fen=budget_fen,
        starts_at=starts_at,
        ends_at=ends_at,
        timezone_name=timezone_name,
        client_apps=apps,
    )
    campaign_id = uuid.uuid4()
    with transaction.atomic():
        campaign = Campaign(
            id=campaign_id,
            slug=slug,
            name_zh=name_zh,
            name_en=name_en,
            rules_zh=rules_zh,
            rules_en=rules_en,
            odds_zh=odds_zh,
            odds_en=odds_en,
            organiser_zh=organiser_zh,
            organiser_en=organiser_en,
            contact_zh=contact_zh,
            contact_en=contact_en,
            budget_fen=budget_fen,
            currency=CURRENCY,
            account=ledger.account_get_or_create(
                kind=Account.Kind.CAMPAIGN, owner=campaign_id.hex, currency=CURRENCY
            ),
            gate=packet_services.gate_create(key=f"campaign:{campaign_id.hex}"),
            starts_at=starts_at,
            ends_at=ends_at,
            timezone=timezone_name,
            created_by=created_by,
            edited_by=created_by,
        )
        campaign.save(force_insert=True)
        campaign.client_apps.set(apps)
        audit(campaign, actor, "create", after={"budget_fen": budget_fen, "slug": slug})
    return campaign


# --- Changing one --------------------------------------------------------------------------------


def campaign_update(
    *,
    campaign_id: uuid.UUID,
    actor: str,
    by: User | None = None,
    version: int | None = None,
    **fields: Any,
) -> Campaign:
    """Other texts, budget, window or apps for a campaign that hasn't started yet.

    Packets that opened or closed with the campaign follow its window. `version` is the campaign's
    as the caller saw it.
    """
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, EDITABLE)
        require_version(campaign, version)
        apps = sorted(set(fields.pop("client_apps", _apps(campaign))))
        if "timezone_name" in fields:
            fields["timezone"] = fields.pop("timezone_name")
        unknown = set(fields) - {*TEXTS, "slug", "budget_fen", "starts_at", "ends_at", "timezone"}
        if unknown:
            raise TypeError(f"a campaign has no {', '.join(sorted(unknown))}")
        before = {name: getattr(campaign, name) for name in fields}
        if before == fields and apps == _apps(campaign):
            return campaign
        old_window = campaign.starts_at, campaign.ends_at
        old_slug = campaign.slug
        for name, value in fields.items():
            setattr(campaign, name, value)
        rules.check_campaign(
            slug=campaign.slug,
            name_zh=campaign.name_zh,
            budget_fen=campaign.budget_fen,
            starts_at=campaign.starts_at,
            ends_at=campaign.ends_at,
            timezone_name=campaign.timezone,
            client_apps=apps,
            own_slug=old_slug,
        )
        rules.check_sum(campaign, extra_fen=0)
        review.void(campaign, actor=actor, by=by)
        campaign.save(update_fields=list(fields))
        campaign.client_apps.set(apps)
        _packets_follow(campaign, old_window, apps)
        touched(campaign, by)
        changed = {name: value for name, value in fields.items() if before[name] != value}
        audit(
            campaign,
            actor,
            "update",
            before={name: _plain(before[name]) for name in changed},
            after={name: _plain(value) for name, value in changed.items()},
        )
    return Campaign.objects.get(pk=campaign_id)


def campaign_budget_set(
    *, campaign_id: uuid.UUID, budget_fen: int, actor: str, by: User | None = None
) -> Campaign:
    """Another budget for a draft; never below what its packets need."""
    return campaign_update(campaign_id=campaign_id, actor=actor, by=by, budget_fen=budget_fen)


def _apps(campaign: Campaign) -> list[int]:
    return list(campaign.client_apps.values_list("id", flat=True).order_by("id"))


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _packets_follow(
    campaign: Campaign, old: tuple[dt.datetime, dt.datetime], apps: list[int]
) -> None:
    for link in campaign.links.select_related("packet"):
        packet = link.packet
        opens_at, closes_at = packet.opens_at, packet.closes_at
        if link.rain_id is None:  # a round's times are its own, wherever the campaign's lie
            opens_at = campaign.starts_at if opens_at == old[0] else opens_at
            closes_at = campaign.ends_at if closes_at == old[1] else closes_at
        rules.check_packet_window(campaign, opens_at, closes_at)
        packet_services.packet_window_set(
            packet_id=packet.pk, opens_at=opens_at, closes_at=closes_at, client_apps=apps
        )


# --- Its packets ---------------------------------------------------------------------------------


def campaign_packet_add(
    *,
    campaign_id: uuid.UUID,
    actor: str,
    total_fen: int,
    count: int,
    opens_at: dt.datetime | None = None,
    closes_at: dt.datetime | None = None,
    by: User | None = None,
    **cut: Any,
) -> Packet:
    """A further packet of a campaign that hasn't started; a running one gets it by a top-up.

    `cut` are the rules of `packets.services.packet_create` (strategy, min_fen, max_fen, tiers, …),
    whose refusals pass through. The window defaults to the campaign's.
    """
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, EDITABLE)
        packet = packet_attach(campaign, total_fen, count, opens_at, closes_at, cut)
        review.void(campaign, actor=actor, by=by)
        touched(campaign, by)
        audit(
            campaign,
            actor,
            "packet_add",
            after={"packet": packet.public_id, "total_fen": total_fen, "count": count},
        )
    return packet


def packet_attach(
    campaign: Campaign,
    total_fen: int,
    count: int,
    opens_at: dt.datetime | None,
    closes_at: dt.datetime | None,
    cut: dict[str, Any],
) -> Packet:
    """The packet as a draft behind the campaign's gate, checked against the campaign."""
    opens_at, closes_at = opens_at or campaign.starts_at, closes_at or campaign.ends_at
    rules.check_packet_window(campaign, opens_at, closes_at)
    packet_services.packet_check(total_fen=total_fen, count=count, **rules.cut_only(cut))
    rules.check_prizes(total_fen=total_fen, count=count, **rules.cut_only(cut))
    rules.check_sum(campaign, extra_fen=total_fen)
    place = campaign.links.aggregate(last=Max("order"))["last"] or 0
    if place >= MAX_PACKETS_PER_CAMPAIGN:
        raise ServiceError(
            "campaign",
            "too_many_packets",
            _("A campaign has at most %(most)s packets."),
            most=MAX_PACKETS_PER_CAMPAIGN,
        )
    packet = packet_services.packet_create(
        funder=campaign.account,
        gate=campaign.gate,
        total_fen=total_fen,
        count=count,
        opens_at=opens_at,
        closes_at=closes_at,
        client_apps=_apps(campaign),
        **cut,
    )
    CampaignPacket.objects.create(
        campaign=campaign,
        packet=packet,
        order=place + 1,
        password_encrypted=_kept(cut.get("password", "")),
    )
    return packet


def _kept(password: str) -> str:
    return crypto.encrypt(password.encode()) if password else ""


def campaign_packet_change(
    *,
    campaign_id: uuid.UUID,
    packet_id: uuid.UUID,
    actor: str,
    total_fen: int,
    count: int,
    opens_at: dt.datetime | None = None,
    closes_at: dt.datetime | None = None,
    by: User | None = None,
    **cut: Any,
) -> Packet:
    """Other rules for a packet of a campaign that hasn't started: all of them, as for a new one.

    Without a `password` the packet keeps the one it has; an empty one takes it away.
    """
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, EDITABLE)
        link = _link(campaign, packet_id)
        opens_at, closes_at = opens_at or campaign.starts_at, closes_at or campaign.ends_at
        rules.check_packet_window(campaign, opens_at, closes_at)
        packet_services.packet_check(total_fen=total_fen, count=count, **rules.cut_only(cut))
        rules.check_prizes(total_fen=total_fen, count=count, **rules.cut_only(cut))
        rules.check_sum(campaign, extra_fen=total_fen - link.packet.total_fen)
        if "password" in cut:
            link.password_encrypted = _kept(cut["password"])
        elif link.password_encrypted:
            cut["password"] = crypto.decrypt(link.password_encrypted).decode()
        packet = packet_services.packet_create(
            packet_id=packet_id,
            redraft=True,
            funder=campaign.account,
            gate=campaign.gate,
            total_fen=total_fen,
            count=count,
            opens_at=opens_at,
            closes_at=closes_at,
            client_apps=_apps(campaign),
            **cut,
        )
        link.save(update_fields=["password_encrypted"])
        growth_rules.require_still_reward(campaign, packet)
        review.void(campaign, actor=actor, by=by)
        touched(campaign, by)
        audit(
            campaign,
            actor,
            "packet_change",
            before={"total_fen": link.packet.total_fen, "count": link.packet.count},
            after={"packet": packet.public_id, "total_fen": total_fen, "count": count},
        )
    return packet


def campaign_packet_remove(
    *, campaign_id: uuid.UUID, packet_id: uuid.UUID, actor: str, by: User | None = None
) -> None:
    """Take a packet out of a campaign that hasn't started; its list of people goes with it."""
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, EDITABLE)
        link = _link(campaign, packet_id)
        growth_rules.require_no_reward(link.packet)
        before = {"packet": link.packet.public_id, "total_fen": link.packet.total_fen}
        link.delete()
        packet_services.packet_discard(packet_id=packet_id)
        review.void(campaign, actor=actor, by=by)
        touched(campaign, by)
        audit(campaign, actor, "packet_remove", before=before)


def _link(campaign: Campaign, packet_id: uuid.UUID) -> CampaignPacket:
    link = campaign.links.select_related("packet").filter(packet_id=packet_id).first()
    if link is None:
        raise ServiceError("packet", "not_found", _("The campaign has no such packet."))
    return link
