"""What can be done to a campaign. Every state change is one conditional UPDATE whose row count is
looked at, with its money and one audit event in the same transaction.

    draft ─> live <─> paused ─> ended ──> settled
               └──────┴──────> killed ──┘

A transition first becomes true in Postgres, then `campaign_converge` brings the gate and the
packets in line with it. A process that dies in between leaves work that the clock (`tasks.py`)
finds and does: converging is safe to repeat and safe to run twice at once.

Invariant kept here: what the packets of a campaign may give away never exceeds its budget (refused
here with words; made impossible by the ledger account that can't be overdrawn).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Max

from campaign import rules, selectors
from campaign.convergence import campaign_converge, campaign_locked
from campaign.models import Campaign, CampaignPacket
from engine.lib.audit import audit_record
from engine.lib.clock import now
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.money import CURRENCY, MAX_FEN
from packets import ledger
from packets import services as packet_services
from packets.models import Account, Gate, Packet, Transfer

State = Campaign.State
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
        )
        campaign.save(force_insert=True)
        campaign.client_apps.set(apps)
        _audit(campaign, actor, "create", after={"budget_fen": budget_fen, "slug": slug})
    return campaign


def campaign_packet_add(
    *,
    campaign_id: uuid.UUID,
    actor: str,
    total_fen: int,
    count: int,
    opens_at: dt.datetime | None = None,
    closes_at: dt.datetime | None = None,
    **cut: Any,
) -> Packet:
    """A further packet of a campaign that is a draft, live or paused; a live one opens it at once.

    `cut` are the rules of `packets.services.packet_create` (strategy, min_fen, max_fen, tiers, …),
    whose refusals pass through. The window defaults to the campaign's.
    """
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        if campaign.state not in (State.DRAFT, State.LIVE, State.PAUSED):
            raise TransitionRefused(
                f"campaign {campaign.slug}", campaign.state, (State.DRAFT, State.LIVE, State.PAUSED)
            )
        opens_at, closes_at = opens_at or campaign.starts_at, closes_at or campaign.ends_at
        if closes_at <= opens_at:
            raise ServiceError(
                "closes_at", "ends_before_start", "the packet would close before it opens"
            )
        if opens_at < campaign.starts_at or closes_at > campaign.ends_at:
            raise ServiceError(
                "closes_at" if closes_at > campaign.ends_at else "opens_at",
                "outside_campaign",
                "the packet's window must lie within the campaign's",
            )
        rules.check_sum(campaign, extra_fen=total_fen)
        place = campaign.links.aggregate(last=Max("order"))["last"] or 0
        if place >= MAX_PACKETS_PER_CAMPAIGN:
            raise ServiceError(
                "campaign", "too_many_packets", f"{MAX_PACKETS_PER_CAMPAIGN} packets at most"
            )
        packet = packet_services.packet_create(
            funder=campaign.account,
            gate=campaign.gate,
            total_fen=total_fen,
            count=count,
            opens_at=opens_at,
            closes_at=closes_at,
            client_apps=list(campaign.client_apps.values_list("id", flat=True).order_by("id")),
            **cut,
        )
        CampaignPacket.objects.create(campaign=campaign, packet=packet, order=place + 1)
        Campaign.objects.filter(pk=campaign.pk).update(version=F("version") + 1)
        if campaign.state != State.DRAFT:
            packet = packet_services.packet_open(packet_id=packet.pk, actor=actor)
        _audit(
            campaign,
            actor,
            "packet_add",
            after={"packet": packet.public_id, "total_fen": total_fen, "count": count},
        )
    return packet


def campaign_budget_set(*, campaign_id: uuid.UUID, budget_fen: int, actor: str) -> Campaign:
    """Another budget for a draft; never below what its packets need."""
    rules.check_budget(budget_fen)
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        _require(campaign, (State.DRAFT,))
        before = campaign.budget_fen
        campaign.budget_fen = budget_fen
        rules.check_sum(campaign, extra_fen=0)
        Campaign.objects.filter(pk=campaign.pk).update(
            budget_fen=budget_fen, version=F("version") + 1
        )
        _audit(
            campaign,
            actor,
            "budget_set",
            before={"budget_fen": before},
            after={"budget_fen": budget_fen},
        )
    return Campaign.objects.get(pk=campaign_id)


# --- The life cycle ------------------------------------------------------------------------------


def campaign_launch(*, campaign_id: uuid.UUID, actor: str) -> Campaign:
    """draft → live: the whole budget enters the campaign's account, and its packets open.

    All of it or nothing: a packet that can't open undoes the launch.
    """
    with transaction.atomic():
        campaign = _transition(campaign_id, (State.DRAFT,), State.LIVE)
        if not campaign.links.exists():
            raise ServiceError("packets", "blank", "a campaign without packets can't be launched")
        rules.check_sum(campaign, extra_fen=0)
        over = Packet.objects.filter(campaign_link__campaign=campaign, closes_at__lte=now())
        if campaign.ends_at <= now() or over.exists():
            raise ServiceError(
                "ends_at", "in_the_past", "the end of the campaign or of a packet has passed"
            )
        _fund(campaign, campaign.budget_fen, f"fund:{campaign.pk.hex}")
        for link in campaign.links.order_by("packet"):
            packet_services.packet_open(packet_id=link.packet_id, actor=actor)
        _audit(campaign, actor, "launch", *_states(State.DRAFT, State.LIVE))
    return campaign_converge(campaign_id=campaign_id, actor=actor)


def campaign_pause(*, campaign_id: uuid.UUID, actor: str, reason: str = "") -> Campaign:
    """live → paused: no portion is given until it is resumed; no money moves."""
    _move(campaign_id, (State.LIVE,), State.PAUSED, actor, "pause", reason)
    return campaign_converge(campaign_id=campaign_id, actor=actor, reason=reason)


def campaign_resume(*, campaign_id: uuid.UUID, actor: str, reason: str = "") -> Campaign:
    """paused → live."""
    _move(campaign_id, (State.PAUSED,), State.LIVE, actor, "resume", reason)
    return campaign_converge(campaign_id=campaign_id, actor=actor, reason=reason)


def campaign_kill(*, campaign_id: uuid.UUID, actor: str, reason: str = "") -> Campaign:
    """live or paused → killed, for good: what nobody claimed returns to the campaign's account."""
    _move(campaign_id, (State.LIVE, State.PAUSED), State.KILLED, actor, "kill", reason)
    return campaign_converge(campaign_id=campaign_id, actor=actor, reason=reason)


def campaign_end(*, campaign_id: uuid.UUID, actor: str, reason: str = "") -> Campaign:
    """live or paused → ended: the same move of money as a kill, said as the planned end."""
    _move(campaign_id, (State.LIVE, State.PAUSED), State.ENDED, actor, "end", reason)
    return campaign_converge(campaign_id=campaign_id, actor=actor, reason=reason)


def campaign_settle(*, campaign_id: uuid.UUID, actor: str) -> Campaign:
    """ended or killed → settled: what is left of the budget goes back outside, once.

    Refused while a packet is still open, or while a claim waits for settlement or is parked: its
    money could come back into an account that nobody looks at any more.
    """
    with transaction.atomic():
        before = campaign_locked(campaign_id).state
        campaign = _transition(campaign_id, (State.ENDED, State.KILLED), State.SETTLED)
        money = selectors.campaign_money(campaign)
        if money.open_packets:
            raise ServiceError(
                "packets", "packets_open", f"{money.open_packets} packets are not closed yet"
            )
        if money.unsettled_count:
            raise ServiceError(
                "claims", "claims_unsettled", f"{money.unsettled_count} claims wait for settlement"
            )
        if money.parked_count:
            raise ServiceError(
                "claims", "claims_parked", f"settlement was refused for {money.parked_count} claims"
            )
        left_fen = ledger.balance_fen(campaign.account_id)
        if left_fen:
            ledger.post(
                [
                    ledger.Entry(
                        reference=f"refund:{campaign.pk.hex}",
                        kind=Transfer.Kind.REFUND,
                        debit_account_id=campaign.account_id,
                        credit_account_id=ledger.external_account(campaign.currency).pk,
                        amount_fen=left_fen,
                        currency=campaign.currency,
                    )
                ]
            )
        _audit(campaign, actor, "settle", *_states(before, State.SETTLED))
    return Campaign.objects.get(pk=campaign_id)


def campaign_top_up(
    *, campaign_id: uuid.UUID, extra_fen: int, version: int, actor: str
) -> Campaign:
    """More budget for a live or paused campaign, from outside into its account.

    `version` is the campaign's as the caller saw it: of two equal requests only the first counts.
    """
    if not 0 < extra_fen <= MAX_FEN:
        raise ServiceError("extra_fen", "out_of_range", "a top-up is a positive number of fen")
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        _require(campaign, (State.LIVE, State.PAUSED))
        if campaign.version != version:
            raise ServiceError(
                "version", "changed_meanwhile", "the campaign was changed meanwhile; look again"
            )
        rules.check_budget(campaign.budget_fen + extra_fen)
        Campaign.objects.filter(pk=campaign.pk, version=version).update(
            budget_fen=F("budget_fen") + extra_fen, version=F("version") + 1
        )
        _fund(campaign, extra_fen, f"fund:{campaign.pk.hex}:{version}")
        _audit(
            campaign,
            actor,
            "top_up",
            before={"budget_fen": campaign.budget_fen},
            after={"budget_fen": campaign.budget_fen + extra_fen},
        )
    return Campaign.objects.get(pk=campaign_id)


def kill_switch_all(*, on: bool, actor: str, reason: str = "") -> Gate:
    """Stops (or allows again) every claim of every campaign, by the gate before them all.

    The gate is paused, not closed: people hear `paused`, which is not final, so that switching it
    off again breaks no promise.
    """
    gate = Gate.objects.filter(key=Gate.ALL).first() or packet_services.gate_create(key=Gate.ALL)
    wanted = Gate.State.PAUSED if on else Gate.State.OPEN
    before = gate.state
    packet_services.gate_set(gate_id=gate.pk, state=wanted, reason=reason, actor=actor)
    audit_record(
        actor=actor,
        action="kill_switch.on" if on else "kill_switch.off",
        object_type="gate",
        object_id=gate.key,
        before={"state": before},
        after={"state": wanted},
        reason=reason,
    )
    gate.refresh_from_db()
    return gate


# --- Inside --------------------------------------------------------------------------------------


def _transition(
    campaign_id: uuid.UUID, sources: tuple[Campaign.State, ...], target: Campaign.State
) -> Campaign:
    """The conditional UPDATE. Of any number of callers exactly one finds the row as it wants it."""
    moved = Campaign.objects.filter(pk=campaign_id, state__in=sources).update(
        state=target, version=F("version") + 1, changed_at=now()
    )
    campaign = campaign_locked(campaign_id)
    if moved != 1:
        raise TransitionRefused(f"campaign {campaign.slug}", campaign.state, sources)
    return campaign


def _move(
    campaign_id: uuid.UUID,
    sources: tuple[Campaign.State, ...],
    target: Campaign.State,
    actor: str,
    verb: str,
    reason: str,
) -> None:
    """A transition that moves no money by itself."""
    with transaction.atomic():
        before = campaign_locked(campaign_id).state
        campaign = _transition(campaign_id, sources, target)
        _audit(campaign, actor, verb, *_states(before, target), reason=reason)


def _states(before: str, after: str) -> tuple[dict[str, str], dict[str, str]]:
    return {"state": str(before)}, {"state": str(after)}


def _require(campaign: Campaign, states: tuple[Campaign.State, ...]) -> None:
    if campaign.state not in states:
        raise TransitionRefused(f"campaign {campaign.slug}", campaign.state, states)


def _fund(campaign: Campaign, amount_fen: int, reference: str) -> None:
    ledger.post(
        [
            ledger.Entry(
                reference=reference,
                kind=Transfer.Kind.FUND,
                debit_account_id=ledger.external_account(campaign.currency).pk,
                credit_account_id=campaign.account_id,
                amount_fen=amount_fen,
                currency=campaign.currency,
            )
        ]
    )


def _audit(
    campaign: Campaign,
    actor: str,
    verb: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
) -> None:
    audit_record(
        actor=actor,
        action=f"campaign.{verb}",
        object_type="campaign",
        object_id=campaign.pk.hex,
        before=dict(before) if before else None,
        after=dict(after) if after else None,
        reason=reason,
    )
