"""Writes the limits of the claim path. Changes are audited; processes heed them within a second."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError
from engine.lib.money import MAX_FEN
from packets.models import MAX_LIMIT_WINDOW_S, Gate, LimitRule, Packet

# A pace's tally is kept in whole microseconds: faster ones than this would be rounded away.
MAX_PER_SECOND = 100_000
MAX_RULES = 10  # in one place: everywhere, one campaign, or one packet
FIELDS = (
    "gate_id",
    "packet_id",
    "subject",
    "measure",
    "method",
    "limit",
    "window_s",
    "burst",
    "timezone",
    "when_away",
    "is_active",
    "note",
)


@dataclass(frozen=True)
class Wanted:
    """A limit as somebody wants it; `gate` and `packet` at most one, neither: everywhere."""

    subject: str
    limit: int
    window_s: int
    gate: Gate | None = None
    packet: Packet | None = None
    measure: str = LimitRule.Measure.CLAIMS
    method: str = LimitRule.Method.WINDOW
    burst: int = 0
    timezone: str = "Asia/Shanghai"
    when_away: str = LimitRule.WhenAway.REFUSE
    is_active: bool = True
    note: str = ""


def limit_rule_set(*, wanted: Wanted, actor: str, rule_id: int | None = None) -> LimitRule:
    """Make a limit, or change one. Raises ServiceError that names the field."""
    limit_rule_check(wanted, rule_id)
    with transaction.atomic():
        if rule_id is None:
            rule, before = LimitRule(), None
        else:
            rule = LimitRule.objects.select_for_update().get(id=rule_id)
            before = _picture(rule)
        for name, value in vars(wanted).items():
            setattr(rule, name, value)
        rule.save()
        audit_record(
            actor=actor,
            action="limit.set",
            object_type="limit",
            object_id=str(rule.pk),
            before=before,
            after=_picture(rule),
            reason=wanted.note,
        )
    return rule


def limit_rule_check(wanted: Wanted, rule_id: int | None = None) -> None:
    """Raises ServiceError that names the field. `rule_id`: the row that is to be changed."""
    others = LimitRule.objects.filter(is_active=True).exclude(id=rule_id or 0)
    if wanted.packet is not None:
        others = others.filter(packet=wanted.packet)
    else:
        others = others.filter(gate=wanted.gate, packet=None)
    if wanted.is_active and others.count() >= MAX_RULES:
        raise ServiceError(
            "is_active",
            "too_many",
            _("%(count)d limits stand there already: each costs every claim a look-up.")
            % {"count": MAX_RULES},
        )
    if wanted.gate is not None and wanted.packet is not None:
        raise ServiceError("packet", "one_place", _("Name a campaign or a packet, not both."))
    if not 1 <= wanted.limit <= MAX_FEN:
        raise ServiceError("limit", "bounds", _("The limit is at least 1."))
    if not 1 <= wanted.window_s <= MAX_LIMIT_WINDOW_S:
        raise ServiceError("window_s", "bounds", _("A window has 1 second to 31 days."))
    try:
        zoneinfo.ZoneInfo(wanted.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise ServiceError("timezone", "unknown", _("There is no such time zone.")) from error
    if wanted.method == LimitRule.Method.WINDOW:
        if wanted.burst:
            raise ServiceError("burst", "not_here", _("Only a pace has a burst; leave it at 0."))
        return
    if not 1 <= wanted.burst <= MAX_FEN:
        raise ServiceError("burst", "bounds", _("A pace needs a burst of at least 1."))
    if wanted.limit > wanted.window_s * MAX_PER_SECOND:
        raise ServiceError(
            "limit", "too_fast", _("A pace is at most 100,000 a second; count in a window instead.")
        )


def _picture(rule: LimitRule) -> dict[str, Any]:
    values = {name: getattr(rule, name) for name in FIELDS}
    return {name: getattr(value, "hex", value) for name, value in values.items()}


def sentence(rule: LimitRule, campaign: str = "") -> str:
    """The rule as one sentence, in the reader's language; `campaign`: what the gate's is called."""
    if rule.packet is not None:
        where = _("in packet “%(name)s”") % {"name": rule.packet}
    elif rule.gate is not None:
        where = _("in campaign “%(name)s”") % {"name": campaign or rule.gate.key}
    else:
        where = _("in all campaigns together")
    amount = rule.measure == LimitRule.Measure.AMOUNT
    many = (
        f"¥{rule.limit / 100:,.2f}"
        if amount
        else ngettext("%(n)s claim", "%(n)s claims", rule.limit) % {"n": f"{rule.limit:,}"}
    )
    text = (
        _("%(who)s %(where)s may win %(many)s every %(window)s.")
        if amount
        else _("%(who)s %(where)s may make %(many)s every %(window)s.")
    )
    the_same = (rule.packet is not None and rule.subject == LimitRule.Subject.PACKET) or (
        rule.gate is not None and rule.subject == LimitRule.Subject.CAMPAIGN
    )
    said = text % {
        "who": _("everybody together") if the_same else rule.get_subject_display(),
        "where": where,
        "many": many,
        "window": _window(rule.window_s),
    }
    if rule.method == LimitRule.Method.PACE:
        said += " " + _("They are spread evenly; %(burst)s may come at once.") % {
            "burst": f"¥{rule.burst / 100:,.2f}" if amount else f"{rule.burst:,}"
        }
    return capfirst(said)


def _window(seconds: int) -> str:
    for size, one, many in (
        (86_400, _("day"), _("%(n)d days")),
        (3_600, _("hour"), _("%(n)d hours")),
        (60, _("minute"), _("%(n)d minutes")),
        (1, _("second"), _("%(n)d seconds")),
    ):
        if seconds % size == 0:
            return one if seconds == size else many % {"n": seconds // size}
    raise AssertionError(seconds)
