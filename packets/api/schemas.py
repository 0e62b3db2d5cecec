"""The shapes of the packets' API, in and out. The OpenAPI document is made from these.

Money is whole fen, times are RFC 3339 in UTC, ids are opaque strings. A member that may be missing
is UNSET rather than null.
"""

from __future__ import annotations

import enum
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.api.schemas import PRINTABLE
from engine.lib.money import MAX_FEN
from engine.lib.schema import Body
from packets import people_packets
from packets.claiming.effects import ClaimRequest, Reason, Result

Fen = Annotated[int, Meta(ge=0, le=MAX_FEN, description="Whole fen (1/100 yuan).")]
Count = Annotated[int, Meta(ge=0)]
Id = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="Opaque id.")]
Time = Annotated[str, Meta(description="RFC 3339, UTC.", extra_json_schema={"format": "date-time"})]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
Hex = Annotated[str, Meta(pattern="^[0-9a-f]+$")]

TICKET_MAX_CHARS = 1024  # a signed token fits; anything longer can't be one of ours
PASSWORD_MAX_CHARS = 64
SHARE_CODE_MAX_CHARS = 64


# Any text but NUL, which no column of ours can hold.
NO_NUL = r"^[^\u0000]*$"


class PacketState(enum.StrEnum):
    """`closed` is final; `sold_out` may still be followed by a return of portions."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    PAUSED = "paused"
    SOLD_OUT = "sold_out"
    CLOSED = "closed"


class ClaimStatus(enum.StrEnum):
    """`committed`: won and safe; `settled`: in the wallet; `held`, `forfeited`: under review."""

    COMMITTED = "committed"
    SETTLED = "settled"
    HELD = "held"
    FORFEITED = "forfeited"


class Kind(enum.StrEnum):
    FIXED = "fixed"
    LUCKY = "lucky"
    DOUBLE_MEAN = "double_mean"
    TIERS = "tiers"


class ClaimBody(Body):
    """All members are optional; most packets need none."""

    ticket: Annotated[str, Meta(max_length=TICKET_MAX_CHARS, pattern=NO_NUL)] | UnsetType = UNSET
    password: Annotated[str, Meta(max_length=PASSWORD_MAX_CHARS, pattern=NO_NUL)] | UnsetType = (
        UNSET
    )
    share_code: (
        Annotated[str, Meta(max_length=SHARE_CODE_MAX_CHARS, pattern=NO_NUL)] | UnsetType
    ) = UNSET


class PeopleKind(enum.StrEnum):
    """How a person's own packet may be cut: by luck, or into equal portions."""

    LUCKY = "lucky"
    FIXED = "fixed"


class PacketBody(Body):
    """A packet of your own, paid from your wallet. `expires_in_s`: a day where you don't say."""

    kind: PeopleKind
    total_fen: Annotated[int, Meta(ge=1, le=people_packets.MAX_TOTAL_FEN)]
    count: Annotated[int, Meta(ge=1, le=people_packets.MAX_COUNT)]
    message: (
        Annotated[
            str,
            Meta(max_length=people_packets.MESSAGE_MAX_CHARS, extra_json_schema=PRINTABLE),
        ]
        | UnsetType
    ) = UNSET
    expires_in_s: (
        Annotated[
            int,
            Meta(ge=people_packets.MIN_EXPIRES_IN_S, le=people_packets.MAX_EXPIRES_IN_S),
        ]
        | UnsetType
    ) = UNSET


def packet_wanted(body: PacketBody) -> people_packets.Wanted:
    return people_packets.Wanted(
        kind=body.kind.value,
        total_fen=body.total_fen,
        count=body.count,
        message="" if body.message is UNSET else body.message,
        expires_in_s=None if body.expires_in_s is UNSET else body.expires_in_s,
    )


def claim_request(body: ClaimBody) -> ClaimRequest:
    return ClaimRequest(
        ticket=None if body.ticket is UNSET else body.ticket,
        password=None if body.password is UNSET else body.password,
        share_code=None if body.share_code is UNSET else body.share_code,
    )


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A portion that is yours. `index` counts within (lane, epoch); see the proof."""

    id: Id
    packet: Id
    amount_fen: Fen
    currency: Currency
    lane: Count
    epoch: Count
    index: Count
    status: ClaimStatus
    claimed_at: Time


class PacketLeft(msgspec.Struct, frozen=True, kw_only=True):
    """A hint of what is left; it may be a second old."""

    left_count: Count
    state: PacketState


class ClaimAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`claim` and `replayed` come with `won`, `reason` with `not_eligible`, `test` with whatever a
    test user of the app hears: no stock and no money is behind it. With `not_started` comes when it
    opens (`opens_at`); it may be moved, so ask again after `Retry-After`.

    The claim's `status` is the one at its commit; `/me/claims` has the current one.
    """

    result: Result
    packet: PacketLeft
    claim: Claim | UnsetType = UNSET
    replayed: bool | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    opens_at: Time | UnsetType = UNSET
    test: Literal[True] | UnsetType = UNSET


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """Whose own packet it is: the name shows its first and last character only."""

    who: str
    you: bool
    message: str


class RecentClaim(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's claim: the name shows its first and last character only."""

    who: str
    amount_fen: Fen
    claimed_at: Time


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A packet as its caller may see it. `sender`: of a person's own packet, for those whom it is
    for."""

    id: Id
    name: str
    state: PacketState
    kind: Kind
    currency: Currency
    total_fen: Fen
    count: Count
    left_count: Count
    opens_at: Time
    closes_at: Time
    password_required: bool
    ticket_required: bool
    seed_commitment: Hex
    seed: Hex | None
    claim: Claim | None
    recent_claims: list[RecentClaim]
    luckiest: RecentClaim | None
    sender: Sender | None


class ClaimPage(msgspec.Struct, frozen=True, kw_only=True):
    results: list[Claim]
    next: str | None


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """`pending_fen`: won, not settled yet; `held_fen`: under review; `withdrawing_fen`: taken out
    and not paid yet."""

    available_fen: Fen
    pending_fen: Fen
    held_fen: Fen
    withdrawing_fen: Fen
    currency: Currency


class TransferKind(enum.StrEnum):
    """Of a wallet: `settle` (a claim came in), `open` and `close` (a packet of one's own was sent;
    its remainder came back), `payout` and `payback` (a withdrawal began; it failed), `hold`,
    `release` and `forfeit` (reviews)."""

    FUND = "fund"
    OPEN = "open"
    GROW = "grow"
    SETTLE = "settle"
    CLOSE = "close"
    REFUND = "refund"
    HOLD = "hold"
    RELEASE = "release"
    FORFEIT = "forfeit"
    PAYOUT = "payout"
    PAID = "paid"
    PAYBACK = "payback"


class WalletTransfer(msgspec.Struct, frozen=True, kw_only=True):
    """One movement of the wallet: `amount_fen` is negative where money left it."""

    id: str
    kind: TransferKind
    amount_fen: Annotated[int, Meta(ge=-MAX_FEN, le=MAX_FEN)]
    currency: Currency
    claim: Id | None
    created_at: Time


class WalletTransferPage(msgspec.Struct, frozen=True, kw_only=True):
    results: list[WalletTransfer]
    next: str | None


class Invariant(msgspec.Struct, frozen=True, kw_only=True):
    """One rule about the money: `value` counts the rows that break it, `detail` names some."""

    number: Count
    name: str
    meaning: str
    value: Count
    holds: bool
    detail: str


class Invariants(msgspec.Struct, frozen=True, kw_only=True):
    """All checkable invariants from one snapshot of the database."""

    taken_at: Time
    holds: bool
    checks: list[Invariant]


class ProofRules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules as committed; `tiers` are pairs of amount (fen) and quantity."""

    strategy: Kind
    total_fen: Fen
    count: Count
    min_fen: Fen
    max_fen: Fen | None
    evenness: Count
    tiers: list[list[Count]]
    remainder: Kind
    currency: Currency


class EpochCause(enum.StrEnum):
    OPENED = "opened"
    GROWN = "grown"
    REBUILT = "rebuilt"
    RESTORED = "restored"
    DIRECT = "direct"
    REBALANCED = "rebalanced"


class ProofEpoch(msgspec.Struct, frozen=True, kw_only=True):
    """What a lane began an epoch with, and why there was a new one.

    `move`: the lanes with an epoch of this number put together what they had left and were dealt
    their parts of it anew.
    """

    epoch: Count
    left_fen: Fen
    left_count: Count
    tiers_left: list[Count]
    cause: EpochCause
    move: Count | None
    opened_at: Time


class ProofLane(msgspec.Struct, frozen=True, kw_only=True):
    lane: Count
    total_fen: Fen
    count: Count
    tiers: list[Count]
    epochs: list[ProofEpoch]


class ProofClaim(msgspec.Struct, frozen=True, kw_only=True):
    """`tier` is 0 where no prize tier was drawn."""

    lane: Count
    epoch: Count
    index: Count
    amount_fen: Fen
    tier: Count


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """SHA-256(seed, canonical) is the commitment; each portion follows from seed and beacon."""

    packet: Id
    rules: ProofRules
    canonical: str
    commitment: Hex
    seed: Hex
    beacon: Hex
    beacon_commitment: Hex
    lanes: list[ProofLane]
    claims: list[ProofClaim]
    next: str | None
