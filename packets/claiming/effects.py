"""The plain values of a claim: what the flow asks of the world, and what comes back.

`flow.py` yields one of the effects and receives the matching reply; a driver performs it. Closed
enums name every result; nothing here does I/O.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from packets.claiming.limits import Asked, Charge, Rule


class Result(enum.StrEnum):
    """What a claim answers (the contract's closed set)."""

    WON = "won"
    SOLD_OUT = "sold_out"
    NOT_STARTED = "not_started"
    ENDED = "ended"
    PAUSED = "paused"
    NOT_ELIGIBLE = "not_eligible"
    TICKET_REQUIRED = "ticket_required"
    TICKET_USED = "ticket_used"
    WRONG_PASSWORD = "wrong_password"
    BLOCKED = "blocked"
    BUSY = "busy"


class Reason(enum.StrEnum):
    """Why somebody is not eligible."""

    NOT_NEW = "not_new"
    NOT_IN_GROUP = "not_in_group"
    NOT_TARGETED = "not_targeted"
    TOO_YOUNG_ACCOUNT = "too_young_account"
    REGION = "region"


@dataclass(frozen=True, slots=True)
class Audience:
    """For whom a packet is. Empty `client_apps` means nobody."""

    client_apps: frozenset[int]
    targeted: bool = False
    group: str = ""
    new_only: bool = False
    min_account_age_days: int = 0
    password_hash: str = ""


@dataclass(frozen=True, slots=True)
class Forced:
    """What a test user of an app hears, whatever is true."""

    result: Result
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class PacketView:
    """What a process remembers of a packet for a second; nothing in it lets anybody win.

    `final` is set when Postgres shows the packet closed or every slot claimed.
    """

    id: uuid.UUID
    lane_ids: tuple[int, ...]
    home_key: bytes
    currency: str
    audience: Audience
    buckets: tuple[int, ...]  # per lane: how many small hashes hold its claimants
    total_count: int
    left_count: int
    state: str  # scheduled | open | paused | sold_out | closed
    final: Result | None
    # By client app and its user id; and what a forced win shows as its portion.
    forced: Mapping[tuple[int, str], Forced] = field(default_factory=dict)
    sample_fen: int = 1
    opens_at: dt.datetime | None = None
    # Set while the packet hasn't opened and nobody has claimed, which nobody can have: the seconds
    # from reading this until it opens, by Postgres's clock. A view doesn't outlive that moment.
    opens_in_s: float | None = None
    needs_ticket: bool = False  # a claim's serial is its ticket's; without one, nobody claims
    gate: int = 0  # the campaign's, whose crowd some limits count
    limits: tuple[Rule, ...] = ()
    blocked: tuple[frozenset[bytes], ...] = ()  # sets of people who win nothing here


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    ticket: str | None = None
    password: str | None = None
    share_code: str | None = None


class Slot(msgspec.Struct, frozen=True, gc=False):
    """The place where one claim may be: packet, home lane, participant, serial."""

    packet: uuid.UUID
    lane_id: int
    lane_number: int
    bucket: int
    participant: bytes
    serial: int
    claim_id: uuid.UUID


class Portion(msgspec.Struct, frozen=True, gc=False):
    """A portion of one lane: which draw it was, and what it is worth."""

    epoch: int
    index: int
    amount_fen: int
    tier: int


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """A claim that is committed in Postgres (or marked in Redis as being so)."""

    id: uuid.UUID
    portion: Portion
    committed_at: dt.datetime


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The answer to a claim."""

    result: Result
    claim: Claimed | None = None
    replayed: bool = False
    reason: Reason | None = None
    left_count: int | None = None  # None: the driver fills in what it knows of the packet
    retry_after_s: int | None = None
    counts: bool = False  # with the limits: a win of this request, or a portion held for the next
    test: bool = False  # forced for a test user: nothing of it is true, and no money moves

    @property
    def is_new_win(self) -> bool:
        return self.result is Result.WON and not self.replayed and not self.test


# --- effects ------------------------------------------------------------------------------------


class AskTargeted(msgspec.Struct, frozen=True, gc=False):
    """Is this participant on the packet's list? Reply: bool."""

    packet: uuid.UUID
    participant: bytes


class MayHaveWon(msgspec.Struct, frozen=True, gc=False):
    """Of a packet that is over: may this participant be among its winners? Reply: bool.

    False only where that is certain; True costs no more than asking Postgres.
    """

    slot: Slot


class Peek(msgspec.Struct, frozen=True, gc=False):
    """Look for the record of a claim before its limits are asked. Reply: Peeked."""

    slot: Slot


class AskInviter(msgspec.Struct, frozen=True, gc=False):
    """Whose share link is this code? Reply: bytes, a participant; empty where it is nobody's."""

    code: str


class CheckLimits(msgspec.Struct, frozen=True, gc=False):
    """Count a claim with every rule that it meets. Reply: an Asked for each, in order."""

    charges: tuple[Charge, ...]


class GiveBack(msgspec.Struct, frozen=True, gc=False):
    """A claim that was counted came to nothing. May be lost. Reply: None."""

    counted: tuple[Asked, ...]


class ChargeAmount(msgspec.Struct, frozen=True, gc=False):
    """Write down what a claim was worth with the rules over amounts. May be lost. Reply: None."""

    charges: tuple[Charge, ...]
    amount_fen: int


class TryPassword(msgspec.Struct, frozen=True, gc=False):
    """Count a try. Reply: bool, whether this participant has used up his tries."""

    slot: Slot
    right: bool


class Reserve(msgspec.Struct, frozen=True, gc=False):
    """Ask Redis for a portion. Reply: Reservation."""

    slot: Slot
    known_absent: bool  # Postgres has been asked: no claim is there


class Commit(msgspec.Struct, frozen=True, gc=False):
    """Commit a reservation in Postgres. Reply: Committed."""

    slot: Slot
    portion: Portion
    client_app_id: int
    subject: str
    share_code: str | None = None  # written down before the claim is


class ClaimDirect(msgspec.Struct, frozen=True, gc=False):
    """Claim through Postgres alone. Reply: Committed.

    `blind`: this process can't reach Redis, and goes on serving the lane so. Otherwise it only
    follows a process that can't: FENCED where none does any more.
    """

    slot: Slot
    client_app_id: int
    subject: str
    blind: bool
    share_code: str | None = None


class AskPostgres(msgspec.Struct, frozen=True, gc=False):
    """What is true of this slot and its packet? Reply: Truth."""

    slot: Slot


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Tell Redis that a claim is committed. May be lost. Reply: None."""

    slot: Slot
    claimed: Claimed


@dataclass(frozen=True, slots=True)
class PushFlags:
    """Redis's flags of this packet disagree with Postgres: write them anew. Reply: None."""

    packet: uuid.UUID


@dataclass(frozen=True, slots=True)
class CloseEnded:
    """The packet's window is over and nobody has closed it yet: do so. Reply: None."""

    packet: uuid.UUID


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Open a new epoch of the lane unless `seen_epoch` is no longer current. Reply: None.

    `seen_epoch` is the epoch whose stock was found wanting; None: Redis has none at all. Where a
    process without Redis serves the lane just now, nothing is opened, and the next Reserve says so.
    """

    slot: Slot
    seen_epoch: int | None


@dataclass(frozen=True, slots=True)
class Refill:
    """The home lane is empty while the packet isn't: portions are to come here. Reply: None.

    Nobody waits for them; whoever asked comes back.
    """

    slot: Slot


Effect = (
    AskTargeted
    | MayHaveWon
    | TryPassword
    | Peek
    | AskInviter
    | CheckLimits
    | GiveBack
    | ChargeAmount
    | Reserve
    | Commit
    | ClaimDirect
    | AskPostgres
    | Mark
    | PushFlags
    | CloseEnded
    | Rebuild
    | Refill
)


# --- replies ------------------------------------------------------------------------------------


class Reserved(enum.IntEnum):
    """What `claim.lua` says; the numbers are the script's. The last two are the driver's own."""

    NEW = 0  # a portion, just cut
    REPEAT = 1  # a portion that this participant has reserved before, not known to be committed
    MARKED = 2  # a portion that is committed
    LOOKUP = 3  # the claimants aren't loaded yet: ask Postgres, then come back
    MISSING = 4  # Redis has no such lane
    PAUSED = 5
    CLOSED = 6
    NOT_STARTED = 7
    ENDED = 8
    EMPTY = 9  # no portion left in this lane
    UNREACHABLE = 100  # Redis is away for this process
    DIRECT = 101  # it isn't, but for another process, which serves the lane through Postgres alone


class Reservation(msgspec.Struct, frozen=True, gc=False):
    code: Reserved
    epoch: int = 0
    portion: Portion | None = None
    left_count: int = 0
    committed_at: dt.datetime | None = None  # with MARKED


class Peeked(msgspec.Struct, frozen=True, gc=False):
    """What Redis has on record of a claim."""

    claimed: Claimed | None = None  # committed, and marked so
    reserved: bool = False  # a portion that was counted when it was cut
    away: bool = False  # it can't be asked


class Verdict(enum.StrEnum):
    """What `laisee_commit_claims` says of one row; `empty` is said of direct claims only."""

    WON = "won"
    EXISTS = "exists"
    FENCED = "fenced"
    CLOSED = "closed"
    PAUSED = "paused"
    NOT_STARTED = "not_started"
    ENDED = "ended"
    MISPLACED = "misplaced"
    CONFLICT = "conflict"
    EMPTY = "empty"  # every portion of the lane is claimed


class Committed(msgspec.Struct, frozen=True, gc=False):
    verdict: Verdict
    claimed: Claimed | None
    lane_epoch: int


@dataclass(frozen=True, slots=True)
class Truth:
    """Postgres's word on a slot. Only what stands here may be told as final."""

    claimed: Claimed | None
    exhausted: bool  # every slot of the packet is claimed
    closed: bool  # its lanes are closed
    paused: bool  # the packet or a gate before it
    not_started: bool
    ended: bool  # past the window and past the grace of commits under way
    lane_open: bool
    lane_epoch: int
    left_count: int
    past_end: bool = True  # past the window; commits of its last moment may be under way


class Unavailable(Exception):
    """A dependency can't answer now. The client hears 503 and may send the same request again."""

    def __init__(self, what: str, retry_after_s: int = 1, *, reserved: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.retry_after_s = retry_after_s
        # Whether the claim holds a portion, or may: the next try completes it.
        self.reserved = reserved


class RedisAway(Unavailable):
    """Redis can't be used now: no connection, no answer in time, or an answer that refuses writes.

    Claims go on through Postgres alone; what only Redis can count has to wait.
    """


class RedisLost(RedisAway):
    """The connection broke under the command. The server may be well: a new one will show."""
