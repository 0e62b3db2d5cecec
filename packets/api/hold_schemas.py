"""The shapes of held money as its person sees it."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from engine.lib.clock import rfc3339
from engine.lib.schema import Body
from packets.api.schemas import NO_NUL, Currency, Fen, Id, Time
from packets.holds.appeals import TEXT_MAX_CHARS
from packets.holds.rules import REASON_WORDS, RiskReason
from packets.models import Hold as HoldRow


class HoldState(enum.StrEnum):
    """`open`: a person will decide; `released`: yours; `forfeited`: gone back to its funder."""

    OPEN = "open"
    RELEASED = "released"
    FORFEITED = "forfeited"


class HoldReason(msgspec.Struct, frozen=True, kw_only=True):
    code: RiskReason
    text: str


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Money of yours that waits for a decision. `claim`: the one that it was won with, if it lay in
    no wallet yet."""

    id: Id
    claim: Id | None
    amount_fen: Fen
    currency: Currency
    state: HoldState
    reasons: list[HoldReason]
    appealed: bool
    held_at: Time
    decided_at: Time | None


class HoldPage(msgspec.Struct, frozen=True, kw_only=True):
    results: list[Hold]
    next: str | None


class AppealBody(Body):
    """What you say about it, to whoever decides."""

    text: Annotated[str, Meta(min_length=1, max_length=TEXT_MAX_CHARS, pattern=NO_NUL)]


class Appeal(msgspec.Struct, frozen=True, kw_only=True):
    """It is kept, and whoever decides will read it."""

    hold: Id
    appealed_at: Time


def hold_of(row: HoldRow) -> Hold:
    return Hold(
        id=row.pk.hex,
        claim=row.claim_id.hex if row.claim_id else None,
        amount_fen=row.amount_fen,
        currency=row.currency,
        state=HoldState(row.state),
        reasons=[
            HoldReason(code=RiskReason(code), text=str(REASON_WORDS[RiskReason(code)]))
            for code in row.reasons
        ],
        appealed=getattr(row, "appeal", None) is not None,
        held_at=rfc3339(row.opened_at),
        decided_at=rfc3339(row.resolved_at) if row.resolved_at else None,
    )
