"""What is read of campaigns: for the API, the admin and the services' own checks. No writes."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from django.db.models import (
    BigIntegerField,
    Case,
    Count,
    Exists,
    F,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Coalesce

from campaign import versions
from campaign.models import (
    Campaign,
    CampaignApproval,
    CampaignPacket,
    Disclosure,
    slug_is_valid,
)
from engine.models import ClientApp, EventKind, WebhookEndpoint
from packets.models import ClaimState, Gate, Hold, Lane, Packet

State = Campaign.State
# What a participant may see of a campaign; before its start it doesn't exist for them.
VISIBLE = (State.LIVE, State.PAUSED, State.KILLED, State.ENDED, State.SETTLED)
_ZERO = Value(0, output_field=BigIntegerField())


@dataclass(frozen=True)
class CampaignMoney:
    """Where a campaign's money is. `free_fen` is the account's balance: not bound in any packet."""

    budget_fen: int
    free_fen: int
    claimed_fen: int
    claimed_count: int
    unsettled_count: int
    parked_count: int
    open_holds: int
    open_packets: int


def campaigns_live(client_app_id: int) -> QuerySet[Campaign]:
    """The campaigns that an app's people can see running, newest first."""
    return (
        _seen(client_app_id)
        .filter(state__in=(State.LIVE, State.PAUSED))
        .order_by("-created_at", "-id")
    )


def campaign_visible(slug: str, client_app_id: int) -> Campaign | None:
    """The campaign of this slug, unless it is a draft or not carried by the app."""
    if not slug_is_valid(slug):  # an address may hold anything, also what no column can
        return None
    return _seen(client_app_id).filter(slug=slug, state__in=VISIBLE).first()


def _seen(client_app_id: int) -> QuerySet[Campaign]:
    """With what the shapes need beside the columns: `published`, whether its rules are."""
    published = Disclosure.objects.filter(campaign=OuterRef("pk"))
    return (
        Campaign.objects.filter(client_apps=client_app_id)
        .annotate(published=Exists(published))
        .prefetch_related("links__packet", "links__rain")
    )


def campaign_committed_fen(campaign: Campaign) -> int:
    """What the campaign's packets may give away in all: a closed one counts what it gave."""
    claimed = (
        Lane.objects.filter(packet=OuterRef("pk"))
        .order_by()
        .values("packet")
        .annotate(fen=Sum("claimed_fen"))
        .values("fen")
    )
    bound = Case(
        When(state=Packet.State.CLOSED, then=Coalesce(Subquery(claimed), _ZERO)),
        default=F("total_fen"),
        output_field=BigIntegerField(),
    )
    packets = Packet.objects.filter(campaign_link__campaign=campaign)
    return int(packets.aggregate(fen=Coalesce(Sum(bound), _ZERO))["fen"])


def campaign_money(campaign: Campaign) -> CampaignMoney:
    lanes = Lane.objects.filter(packet__campaign_link__campaign=campaign).aggregate(
        fen=Coalesce(Sum("claimed_fen"), _ZERO),
        count=Coalesce(Sum("claimed_count"), _ZERO),
        settled=Coalesce(Sum("cursor__settled_count"), _ZERO),
    )
    return CampaignMoney(
        budget_fen=campaign.budget_fen,
        free_fen=campaign.account.balance_fen,
        claimed_fen=int(lanes["fen"]),
        claimed_count=int(lanes["count"]),
        unsettled_count=int(lanes["count"]) - int(lanes["settled"]),
        parked_count=ClaimState.objects.filter(
            state=ClaimState.State.PARKED, claim__packet__campaign_link__campaign=campaign
        ).count(),
        open_holds=Hold.objects.filter(funder=campaign.account_id, state=Hold.State.OPEN).count(),
        open_packets=Packet.objects.filter(
            campaign_link__campaign=campaign, state__in=(Packet.State.OPEN, Packet.State.PAUSED)
        ).count(),
    )


def campaigns_of_drills() -> Exists:
    """Of a campaign's row: whether it is a peak drill's."""
    return Exists(ClientApp.objects.filter(campaigns=OuterRef("pk"), is_drill=True))


def campaigns_with_spending() -> QuerySet[Campaign]:
    """For the admin's list: `spent_fen`, `packet_count` and `is_drill` beside each row."""
    lanes = (
        Lane.objects.filter(packet__campaign_link__campaign=OuterRef("pk"))
        .order_by()
        .values("packet__campaign_link__campaign")
        .annotate(fen=Sum("claimed_fen"))
        .values("fen")
    )
    packets = (
        CampaignPacket.objects.filter(campaign=OuterRef("pk"))
        .order_by()
        .values("campaign")
        .annotate(n=Count("id"))
        .values("n")
    )
    return Campaign.objects.select_related("account", "gate").annotate(
        is_drill=campaigns_of_drills(),
        spent_fen=Coalesce(Subquery(lanes), _ZERO),
        packet_count=Coalesce(Subquery(packets), 0),
    )


def campaigns_with_late_money(limit: int) -> list[uuid.UUID]:
    """Settled ones into whose account something came back since."""
    rows = Campaign.objects.filter(
        state=State.SETTLED, account__credits_fen__gt=F("account__debits_fen")
    )
    return list(rows.order_by("pk").values_list("pk", flat=True)[:limit])


def campaigns_due(moment: dt.datetime, limit: int) -> list[uuid.UUID]:
    """Those whose end has passed and that aren't ended yet."""
    rows = Campaign.objects.filter(
        state__in=(State.LIVE, State.PAUSED), ends_at__lte=moment
    ).order_by("ends_at")
    return list(rows.values_list("pk", flat=True)[:limit])


def campaigns_starting(moment: dt.datetime, limit: int) -> list[uuid.UUID]:
    """Those that are approved and whose time has come."""
    rows = Campaign.objects.filter(state=State.SCHEDULED, starts_at__lte=moment)
    return list(rows.order_by("starts_at").values_list("pk", flat=True)[:limit])


def approval_valid(campaign: Campaign) -> CampaignApproval | None:
    """The approval under which the campaign waits or runs."""
    return (
        campaign.approvals.filter(revoked_at=None)
        .select_related("approver")
        .order_by("-id")
        .first()
    )


def campaign_changes(campaign: Campaign) -> list[versions.Change]:
    """What is different from the last version that somebody approved, for the next approver."""
    last = campaign.approvals.order_by("-id").first()
    return versions.differences(
        last.document if last is not None else None, versions.campaign_document(campaign)
    )


def campaigns_lagging(limit: int) -> list[uuid.UUID]:
    """Those whose gate or packets don't show the campaign's state: a process died in between."""
    stopped = Q(state__in=(State.ENDED, State.KILLED, State.SETTLED))
    gate_lags = (
        (Q(state=State.LIVE) & ~Q(gate__state=Gate.State.OPEN))
        | (Q(state=State.PAUSED) & ~Q(gate__state=Gate.State.PAUSED))
        | (stopped & ~Q(gate__state=Gate.State.CLOSED))
    )
    packets_lag = (
        Q(state__in=(State.LIVE, State.PAUSED)) & Q(packets__state=Packet.State.DRAFT)
    ) | (stopped & Q(packets__state__in=(Packet.State.OPEN, Packet.State.PAUSED)))
    rows = Campaign.objects.filter(gate_lags | packets_lag).order_by("id").distinct()
    return list(rows.values_list("pk", flat=True)[:limit])


def campaigns_exhausted(limit: int) -> list[Campaign]:
    """Running ones whose people can claim nothing more: every portion of every packet is given.

    Only those of which an app wants to hear.
    """
    packets = Packet.objects.filter(campaign_link__campaign=OuterRef("pk"))
    lanes = Lane.objects.filter(packet__campaign_link__campaign=OuterRef("pk"))
    to_come = packets.filter(state=Packet.State.DRAFT)
    left = lanes.exclude(packet__state=Packet.State.CLOSED).filter(claimed_count__lt=F("count"))
    asked = WebhookEndpoint.objects.filter(
        client_app__campaigns=OuterRef("pk"),
        state=WebhookEndpoint.State.ACTIVE,
        kinds__contains=[EventKind.CAMPAIGN_EXHAUSTED.value],
    )
    rows = Campaign.objects.filter(
        Exists(asked), ~Exists(to_come), ~Exists(left), state__in=(State.LIVE, State.PAUSED)
    ).filter(Exists(lanes.filter(claimed_count__gt=0)))
    return list(rows.order_by("id")[:limit])
