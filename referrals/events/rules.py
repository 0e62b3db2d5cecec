"""Writes the rules by which people get tickets by themselves. Changes are audited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from campaign.models import Campaign, CampaignGrowth, CampaignPacket
from campaign.services.common import EDITABLE
from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError
from packets.models import Packet
from referrals.models import TicketRule
from referrals.models.rewarding import MAX_TICKETS

By = TicketRule.By
MAX_RULES = 20  # of a campaign: each is looked at for every event and claim
FIELDS = ("campaign_id", "packet_id", "by", "mission", "a_day", "in_all", "is_active", "note")


@dataclass(frozen=True)
class Wanted:
    """A rule as somebody wants it."""

    campaign: Campaign
    packet: Packet
    by: str
    mission: str = ""
    a_day: int = 1
    in_all: int = 30
    is_active: bool = True
    note: str = ""


def ticket_rule_set(*, wanted: Wanted, actor: str, rule_id: int | None = None) -> TicketRule:
    """Make a rule, or change one. Raises ServiceError that names the field."""
    ticket_rule_check(wanted, rule_id)
    with transaction.atomic():
        if rule_id is None:
            rule, before = TicketRule(), None
        else:
            rule = TicketRule.objects.select_for_update().get(id=rule_id)
            before = _picture(rule)
        for name, value in vars(wanted).items():
            setattr(rule, name, value)
        rule.save()
        audit_record(
            actor=actor,
            action="ticket_rule.set",
            object_type="ticket_rule",
            object_id=str(rule.pk),
            before=before,
            after=_picture(rule),
            reason=wanted.note,
        )
    return rule


def ticket_rule_check(wanted: Wanted, rule_id: int | None = None) -> None:
    """Raises ServiceError that names the field. `rule_id`: the row that is to be changed."""
    campaign, packet = wanted.campaign, wanted.packet
    if rule_id is not None:
        _require_favour(TicketRule.objects.select_related("campaign").get(id=rule_id), wanted)
    if not CampaignPacket.objects.filter(campaign=campaign, packet=packet).exists():
        raise ServiceError("packet", "not_found", _("The campaign has no such packet."))
    if not packet.needs_ticket:
        raise ServiceError("packet", "takes_none", _("This packet is claimed without tickets."))
    growth = CampaignGrowth.objects.filter(campaign=campaign).first()
    if growth and packet.pk in (growth.inviter_packet_id, growth.invitee_packet_id):
        raise ServiceError("packet", "reward", _("This packet pays rewards; name another one."))
    if wanted.by == By.MISSION and not wanted.mission:
        raise ServiceError("mission", "required", _("Name the mission as the app reports it."))
    if wanted.by != By.MISSION and wanted.mission:
        raise ServiceError("mission", "not_here", _("Only a mission's ticket has a mission."))
    if not wanted.mission.isprintable():
        raise ServiceError("mission", "format", _("Only printable characters."))
    if wanted.by == By.FRIEND and (growth is None or growth.shared_friends == 0):
        raise ServiceError(
            "by", "nothing_shared", _("Set first how many friends a shared packet is for.")
        )
    for name in ("a_day", "in_all"):
        if not 1 <= getattr(wanted, name) <= MAX_TICKETS:
            raise ServiceError(name, "bounds", _("Between 1 and %(most)s."), most=MAX_TICKETS)
    others = TicketRule.objects.filter(campaign=campaign, is_active=True).exclude(id=rule_id or 0)
    if wanted.is_active and others.count() >= MAX_RULES:
        raise ServiceError(
            "is_active", "too_many", _("%(most)s rules stand there already."), most=MAX_RULES
        )


def _require_favour(rule: TicketRule, wanted: Wanted) -> None:
    """After the launch a rule gives more, or is switched off, which is safety; what it gives a
    ticket for, and of which packet, stays."""
    if rule.campaign.state in EDITABLE:
        return
    kept = ("campaign", "packet", "by", "mission")
    changed = [name for name in kept if getattr(rule, name) != getattr(wanted, name)]
    fewer = [name for name in ("a_day", "in_all") if getattr(wanted, name) < getattr(rule, name)]
    for name in changed + fewer:
        raise ServiceError(
            name,
            "not_in_favour",
            _("After the launch only changes in favour of those who take part are accepted."),
        )


def _picture(rule: TicketRule) -> dict[str, Any]:
    values = {name: getattr(rule, name) for name in FIELDS}
    return {name: getattr(value, "hex", value) for name, value in values.items()}


def sentence(rule: TicketRule) -> str:
    """The rule as one sentence, in the reader's language."""
    where = {"packet": str(rule.packet), "mission": rule.mission}
    said = {
        By.DAILY: _("Whoever is active or claims on a day gets a ticket of “%(packet)s”."),
        By.MISSION: _("Whoever does “%(mission)s” gets a ticket of “%(packet)s”."),
        By.INVITE: _("Who invites a friend that qualifies gets a ticket of “%(packet)s”."),
        By.FRIEND: _("Who comes with somebody's link gets a ticket of “%(packet)s”."),
    }[By(rule.by)] % where
    a_day = _("%(n)s a day") % {"n": f"{rule.a_day:,}"}
    in_all = _("%(n)s in all") % {"n": f"{rule.in_all:,}"}
    whose = (
        _("Each who shares brings at most %(a_day)s, %(in_all)s.")
        if rule.by == By.FRIEND
        else _("At most %(a_day)s, %(in_all)s.")
    )
    return f"{said} {whose % {'a_day': a_day, 'in_all': in_all}}"
