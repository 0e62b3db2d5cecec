"""Reasons, what was seen, and decisions, in words for people."""

from __future__ import annotations

from collections.abc import Mapping

from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from referrals.models import Decision
from referrals.risk.reasons import Reason

REASONS: dict[Reason, str | Promise] = {
    Reason.SELF: gettext_lazy("Paid into the inviter's own account"),
    Reason.CYCLE: gettext_lazy("Tried to invite their own inviter"),
    Reason.STAR_BURST: gettext_lazy("Many friends of one person, one after the other like a clock"),
    Reason.CHAIN: gettext_lazy("Each invites exactly the next"),
    Reason.CLUSTER: gettext_lazy("Many accounts, few purses or phones"),
    Reason.FAST: gettext_lazy("Claims sooner after joining than a person can"),
    Reason.DEAD_CHILDREN: gettext_lazy("Nobody was seen again after the money"),
}
# By a decision's value; a dry run also counts whom nothing follows for.
DECISIONS: dict[str, str | Promise] = {
    "allow": gettext_lazy("allow"),
    **{one.value: one.label for one in Decision},
}


def seen_words(reason: Reason, seen: Mapping[str, float]) -> str:
    """What was seen, as a sentence in the reader's language."""
    people = _people(seen.get("people", 0))
    match reason:
        case Reason.SELF:
            text = _("%(people)s have the phone and the purse of whoever invited them.")
        case Reason.CYCLE:
            text = ngettext(
                "Somebody tried to be invited by their own invitee %(tries)s time.",
                "Somebody tried to be invited by their own invitee %(tries)s times.",
                round(seen.get("tries", 0)),
            )
        case Reason.STAR_BURST:
            text = _("One of them invited %(people)s, one about every %(gap_s)s seconds.")
        case Reason.CHAIN:
            text = _("Of %(people)s, %(one_invitee)s invited exactly one friend each.")
        case Reason.CLUSTER if "purses" in seen:
            text = ngettext(
                "%(people)s have %(purses)s purse between them.",
                "%(people)s have %(purses)s purses between them.",
                round(seen["purses"]),
            )
        case Reason.CLUSTER:
            text = ngettext(
                "%(people)s have %(phones)s phone between them.",
                "%(people)s have %(phones)s phones between them.",
                round(seen.get("phones", 0)),
            )
        case Reason.FAST:
            text = _("Of %(claims)s first claims, %(fast)s came within seconds after joining.")
        case Reason.DEAD_CHILDREN:
            text = _("Of %(people)s, %(dead)s were never seen again.")
    numbers = {name: f"{value:,.0f}" for name, value in seen.items()}
    return capfirst(text % {**numbers, "people": people})


def _people(count: float) -> str:
    return ngettext("%(n)s person", "%(n)s people", round(count)) % {"n": f"{count:,.0f}"}
