"""Payouts in words: the colour of a state, and why one waits for a person and what to do then."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from packets.holds.rules import REASON_WORDS
from packets.models import Payout
from packets.payouts.allowance import LARGE_AMOUNT
from packets.payouts.rules import ManualReason

State = Payout.State
# The words of the stylesheet.
TONES: dict[str, str] = {
    State.CREATED: "received",
    State.SUBMITTING: "running",
    State.ACCEPTED: "running",
    State.USER_ACTION: "pending",
    State.UNKNOWN: "pending",
    State.PAID: "done",
    State.FAILED: "failed",
    State.CANCELLED: "failed",
}


@dataclass(frozen=True)
class Why:
    """A reason of the manual queue: in a few words, and what a person can do about it."""

    title: str | Promise
    text: str | Promise
    lines: tuple[str, ...] = ()


WHY: dict[str, Why] = {
    ManualReason.REVIEW: Why(
        gettext_lazy("Somebody has to look before it is sent"),
        gettext_lazy("Nothing was sent. Release it, or refuse it: then the money goes back."),
    ),
    ManualReason.TOO_LONG: Why(
        gettext_lazy("No final word from the provider within 48 hours"),
        gettext_lazy(
            "Query it once more. If nothing comes, look it up in the provider's own console by its "
            "number and mark it; somebody else has to agree."
        ),
    ),
    ManualReason.AMOUNT_DIFFERS: Why(
        gettext_lazy("The provider speaks of another amount"),
        gettext_lazy(
            "Compare it with the provider's console and statement before anything else, and call "
            "the provider. It ends only by a mark or by an answer with the right amount."
        ),
    ),
    ManualReason.NOT_SENDABLE: Why(
        gettext_lazy("The request can't be made"),
        gettext_lazy(
            "Usually the account's keys or the payee are wrong. Mend the keys and send it again; "
            "if nothing was ever sent, it can be refused."
        ),
    ),
}


def why_of(payout: Payout) -> Why | None:
    """Why it waits for a person; None: it does not."""
    if not payout.manual_reason:
        return None
    known = WHY.get(payout.manual_reason)
    if known is None:
        return Why(payout.manual_reason, "")
    lines = [_reason_words(reason) for reason in payout.review_reasons]
    if payout.manual_reason == ManualReason.NOT_SENDABLE and payout.failure_detail:
        lines.append(payout.failure_detail)
    return Why(known.title, known.text, tuple(lines))


def _reason_words(code: str) -> str:
    """Why a withdrawal is looked at first, in the reader's language."""
    if code == LARGE_AMOUNT:
        return _("The amount is above the one from which a person looks")
    known = {str(reason): words for reason, words in REASON_WORDS.items()}
    return str(known.get(code, code))
