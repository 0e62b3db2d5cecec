"""What a running campaign may still get, all of it in its people's favour: more budget, further
packets, a later end. Nothing else of it changes once it has started.

Money needs two people here too: one asks, another decides. The request is a row that is decided
once, by a conditional UPDATE; a later end moves no money and needs none.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from campaign import rules
from campaign.convergence import campaign_converge, campaign_locked
from campaign.disclosing.publishing import disclosure_publish
from campaign.models import Campaign, Disclosure, Notice, TopUp
from campaign.people import actor_of
from campaign.services.common import RUNNING, audit, fund, require_state, touched
from campaign.services.drafts import packet_attach
from campaign.services.notices import notices_send, people_who_may
from engine.lib.clock import now
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.money import MAX_FEN
from packets import services as packet_services
from packets.models import Packet

REASON_MAX_CHARS = 300
MAX_PACKETS_PER_TOP_UP = 20
_TIMES = ("opens_at", "closes_at")


def top_up_request(
    *,
    campaign_id: uuid.UUID,
    extra_fen: int,
    by: User,
    reason: str,
    packets: Sequence[dict[str, Any]] = (),
) -> TopUp:
    """Ask for more budget, further packets (rules as for `campaign_packet_add`), or both."""
    if not 0 <= extra_fen <= MAX_FEN:
        raise ServiceError("extra_fen", "out_of_range", _("This must be a positive amount."))
    if not extra_fen and not packets:
        raise ServiceError("extra_fen", "blank", _("Ask for more budget or for packets."))
    if not reason.strip():
        raise ServiceError("reason", "blank", _("Say what it is for."))
    if len(reason) > REASON_MAX_CHARS:
        raise ServiceError(
            "reason", "too_long", _("This has at most %(most)s characters."), most=REASON_MAX_CHARS
        )
    if len(packets) > MAX_PACKETS_PER_TOP_UP:
        raise ServiceError(
            "packets",
            "too_many_packets",
            _("A top-up has at most %(most)s packets."),
            most=MAX_PACKETS_PER_TOP_UP,
        )
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, RUNNING)
        if TopUp.objects.filter(campaign=campaign, state=TopUp.State.PENDING).exists():
            raise ServiceError(
                "", "pending", _("Another top-up of this campaign waits for its decision.")
            )
        rules.check_budget(campaign.budget_fen + extra_fen, field="extra_fen")
        _try(campaign, extra_fen, packets)
        top_up = TopUp.objects.create(
            campaign=campaign,
            extra_fen=extra_fen,
            packets=[_stored(packet) for packet in packets],
            reason=reason,
            requested_by=by,
        )
        notices_send(
            people_who_may("campaign.approve_topup").exclude(pk=by.pk),
            campaign=campaign,
            kind=Notice.Kind.TOP_UP_REQUESTED,
            who=by.get_username(),
            extra_fen=extra_fen,
        )
        audit(
            campaign,
            actor_of(by),
            "top_up_request",
            after={"top_up": top_up.pk, "extra_fen": extra_fen, "packets": len(packets)},
            reason=reason,
        )
    return top_up


def _try(campaign: Campaign, extra_fen: int, packets: Sequence[dict[str, Any]]) -> None:
    """Refuse now what could not be done later, by doing it and taking it back."""
    campaign.budget_fen += extra_fen
    with transaction.atomic():
        for packet in packets:
            _attach(campaign, packet)
        transaction.set_rollback(True)
    campaign.budget_fen -= extra_fen


def _attach(campaign: Campaign, packet: dict[str, Any]) -> Packet:
    cut = dict(packet)
    cut["tiers"] = [tuple(tier) for tier in cut.get("tiers", [])]
    opens_at, closes_at = (_moment(cut.pop(name, None)) for name in _TIMES)
    return packet_attach(campaign, cut.pop("total_fen"), cut.pop("count"), opens_at, closes_at, cut)


def _moment(value: Any) -> dt.datetime | None:
    return dt.datetime.fromisoformat(value) if isinstance(value, str) else value


def _stored(packet: dict[str, Any]) -> dict[str, Any]:
    """As JSON. Pass phrases aren't asked for here: they would be readable in the request. Lists of
    people neither: a list is part of what is approved, and could only come afterwards."""
    if packet.get("password"):
        raise ServiceError(
            "password", "not_here", _("A packet with a pass phrase can't be added by a top-up.")
        )
    if packet.get("targeted"):
        raise ServiceError(
            "targeted", "not_here", _("A packet for listed people can't be added by a top-up.")
        )
    return {
        name: value.isoformat() if isinstance(value, dt.datetime) else value
        for name, value in packet.items()
    }


def top_up_approve(*, top_up_id: int, by: User) -> TopUp:
    """pending → approved: the money enters the campaign's account, and the packets open."""
    with transaction.atomic():
        top_up, campaign = _locked(top_up_id)
        require_state(campaign, RUNNING)
        if by.pk == top_up.requested_by_id:
            raise ServiceError("", "own_work", _("Nobody decides on what they asked for."))
        _decide(top_up, TopUp.State.APPROVED, by, "")
        rules.check_budget(campaign.budget_fen + top_up.extra_fen, field="extra_fen")
        before = campaign.budget_fen
        if top_up.extra_fen:
            Campaign.objects.filter(pk=campaign.pk).update(
                budget_fen=F("budget_fen") + top_up.extra_fen
            )
            campaign.budget_fen += top_up.extra_fen
            fund(campaign, top_up.extra_fen, f"fund:{campaign.pk.hex}:{top_up.pk}")
        for rules_of_packet in top_up.packets:
            packet = _attach(campaign, rules_of_packet)
            packet_services.packet_open(packet_id=packet.pk, actor=actor_of(by))
        touched(campaign, None)
        disclosure_publish(campaign=campaign, cause=Disclosure.Cause.TOPPED_UP)
        _tell(campaign, top_up, by, approved=True, reason="")
        audit(
            campaign,
            actor_of(by),
            "top_up",
            before={"budget_fen": before},
            after={"budget_fen": campaign.budget_fen, "top_up": top_up.pk},
        )
    campaign_converge(campaign_id=top_up.campaign_id, actor=actor_of(by))
    return TopUp.objects.get(pk=top_up_id)


def top_up_reject(*, top_up_id: int, by: User, reason: str) -> TopUp:
    """pending → rejected, with a reason."""
    if not reason.strip():
        raise ServiceError("reason", "blank", _("Say why it is refused."))
    with transaction.atomic():
        top_up, campaign = _locked(top_up_id)
        _decide(top_up, TopUp.State.REJECTED, by, reason[:REASON_MAX_CHARS])
        _tell(campaign, top_up, by, approved=False, reason=reason)
        audit(campaign, actor_of(by), "top_up_reject", after={"top_up": top_up.pk}, reason=reason)
    return TopUp.objects.get(pk=top_up_id)


def top_up_withdraw(*, top_up_id: int, by: User) -> TopUp:
    """pending → withdrawn, by the one who asked."""
    with transaction.atomic():
        top_up, campaign = _locked(top_up_id)
        if by.pk != top_up.requested_by_id:
            raise ServiceError("", "not_yours", _("Only who asked may withdraw it."))
        _decide(top_up, TopUp.State.WITHDRAWN, by, "")
        audit(campaign, actor_of(by), "top_up_withdraw", after={"top_up": top_up.pk})
    return TopUp.objects.get(pk=top_up_id)


def _locked(top_up_id: int) -> tuple[TopUp, Campaign]:
    """The request under its campaign's lock."""
    found = TopUp.objects.filter(pk=top_up_id).first()
    if found is None:
        raise ServiceError("top_up", "not_found", _("There is no such top-up."))
    campaign = campaign_locked(found.campaign_id)
    return TopUp.objects.select_related("requested_by").get(pk=top_up_id), campaign


def _decide(top_up: TopUp, state: TopUp.State, by: User, words: str) -> None:
    moved = TopUp.objects.filter(pk=top_up.pk, state=TopUp.State.PENDING).update(
        state=state, decided_by=by, decided_at=now(), decision=words
    )
    if moved != 1:
        current = TopUp.objects.get(pk=top_up.pk)
        labels = {one.value: one.label for one in TopUp.State}
        raise TransitionRefused(
            str(TopUp._meta.verbose_name), current.state, (TopUp.State.PENDING,), labels
        )


def _tell(campaign: Campaign, top_up: TopUp, by: User, *, approved: bool, reason: str) -> None:
    notices_send(
        [top_up.requested_by],
        campaign=campaign,
        kind=Notice.Kind.TOP_UP_DECIDED,
        who=by.get_username(),
        extra_fen=top_up.extra_fen,
        approved=approved,
        reason=reason,
    )


def campaign_extend(
    *, campaign_id: uuid.UUID, ends_at: dt.datetime, actor: str, reason: str = ""
) -> Campaign:
    """A later end for a running campaign; packets that close with it close later too."""
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, RUNNING)
        if ends_at <= campaign.ends_at:
            raise ServiceError(
                "ends_at",
                "not_later",
                _("The end of a running campaign can only be moved to a later time."),
            )
        old_end = campaign.ends_at
        Campaign.objects.filter(pk=campaign.pk).update(ends_at=ends_at)
        touched(campaign, None)
        packets = Packet.objects.filter(
            campaign_link__campaign=campaign,
            campaign_link__rain=None,  # a round's times are its own
            closes_at=old_end,
            state__in=(Packet.State.OPEN, Packet.State.PAUSED),
        )
        for packet_id in packets.order_by("id").values_list("id", flat=True):
            packet_services.packet_extend(packet_id=packet_id, closes_at=ends_at, actor=actor)
        disclosure_publish(campaign=campaign, cause=Disclosure.Cause.EXTENDED)
        audit(
            campaign,
            actor,
            "extend",
            before={"ends_at": old_end.isoformat()},
            after={"ends_at": ends_at.isoformat()},
            reason=reason,
        )
    return Campaign.objects.get(pk=campaign_id)
