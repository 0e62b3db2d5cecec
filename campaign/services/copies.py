"""A campaign made from another: by a template, as a copy, or kept as a template for later ones."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext_lazy as _

from campaign import blueprints, rules
from campaign.convergence import campaign_locked
from campaign.models import Campaign, CampaignTemplate
from campaign.services.common import audit
from campaign.services.drafts import campaign_create, campaign_packet_add
from campaign.services.growth import growth_unfold
from campaign.services.rains import rains_unfold
from engine.lib import crypto
from engine.lib.errors import ServiceError


def campaign_create_from_template(
    *,
    template: str,
    slug: str,
    client_apps: Iterable[int],
    starts_at: dt.datetime,
    actor: str,
    created_by: User | None = None,
    **instead: Any,
) -> Campaign:
    """A draft with the template's texts, budget and packets; `instead` overrides single fields."""
    row = CampaignTemplate.objects.filter(slug=template, active=True).first()
    if row is None:
        raise ServiceError("template", "not_found", _("There is no such template."))
    fields, packets = blueprints.unfold(row.document, starts_at)
    with transaction.atomic():
        campaign = campaign_create(
            **{
                **fields,
                "slug": slug,
                "client_apps": client_apps,
                "starts_at": starts_at,
                "actor": actor,
                "created_by": created_by,
                **instead,
            }
        )
        made = [
            campaign_packet_add(campaign_id=campaign.pk, actor=actor, by=created_by, **packet).pk
            for packet in packets
        ]
        whole: dict[str, Any] = {"campaign_id": campaign.pk, "document": row.document}
        rains_unfold(**whole, actor=actor, by=created_by)
        growth_unfold(**whole, packets=made, actor=actor, by=created_by)
    return Campaign.objects.get(pk=campaign.pk)


def campaign_copy(
    *,
    campaign_id: uuid.UUID,
    slug: str,
    starts_at: dt.datetime,
    actor: str,
    created_by: User | None = None,
    **instead: Any,
) -> Campaign:
    """A new draft like this campaign, its times moved so that it starts at `starts_at`.

    Lists of people aren't copied: a targeted packet of the copy waits for a list of its own.
    """
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        document = blueprints.fold(campaign)
        fields, packets = blueprints.unfold(document, starts_at)
        copy = campaign_create(
            **{
                **fields,
                "slug": slug,
                "client_apps": campaign.client_apps.values_list("id", flat=True),
                "starts_at": starts_at,
                "actor": actor,
                "created_by": created_by,
                **instead,
            }
        )
        single = campaign.links.filter(rain=None)
        passwords = list(single.values_list("password_encrypted", flat=True))
        made = []
        for packet, stored in zip(packets, passwords, strict=True):
            password = crypto.decrypt(stored).decode() if stored else ""
            added = campaign_packet_add(
                campaign_id=copy.pk, actor=actor, by=created_by, password=password, **packet
            )
            made.append(added.pk)
        whole: dict[str, Any] = {"campaign_id": copy.pk, "document": document}
        rains_unfold(**whole, actor=actor, by=created_by)
        growth_unfold(**whole, packets=made, actor=actor, by=created_by)
    return Campaign.objects.get(pk=copy.pk)


def template_from_campaign(
    *,
    campaign_id: uuid.UUID,
    slug: str,
    name_zh: str,
    name_en: str,
    actor: str,
    description_zh: str = "",
    description_en: str = "",
) -> CampaignTemplate:
    """Keep a campaign's texts, budget and packets for later ones. Pass phrases aren't kept."""
    rules.check_slug(slug)
    if CampaignTemplate.objects.filter(slug=slug).exists():
        raise ServiceError("slug", "taken", _("There is a template of this name already."))
    for field, name in (("name_zh", name_zh), ("name_en", name_en)):
        if not name.strip():
            raise ServiceError(field, "blank", _("A template needs a name."))
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        last = CampaignTemplate.objects.aggregate(last=Max("order"))["last"] or 0
        template = CampaignTemplate.objects.create(
            slug=slug,
            name_zh=name_zh,
            name_en=name_en,
            description_zh=description_zh,
            description_en=description_en,
            document=blueprints.fold(campaign),
            order=last + 1,
        )
        audit(campaign, actor, "template", after={"template": slug})
    return template
