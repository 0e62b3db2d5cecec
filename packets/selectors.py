"""Reads of the data plane. No writes; whoever asks for a person's rows passes that person."""

from __future__ import annotations

import datetime as dt
import functools
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import Q, QuerySet

from engine.lib import ids
from engine.lib.auth import Caller
from engine.lib.money import CURRENCY
from packets.claiming.registry import registry
from packets.models import (
    Account,
    Claim,
    ClaimState,
    Lane,
    Packet,
    Participant,
    PeoplePacket,
    Transfer,
)

# --- packets as their callers see them ------------------------------------------------------------

RECENT_CLAIMS = 10
# Lanes that are asked for recent claims; a pool has many lanes, and ten claims of any are a sample.
RECENT_LANES = 16
# Above this many portions nobody is called the luckiest: finding him would read the whole packet.
LUCKIEST_MAX_PORTIONS = 100_000
# Seconds for which a process shows the same recent claims to everyone.
RECENT_LIFETIME_S = 1.0
RECENT_PACKETS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """Somebody's claim as others may see it."""

    who: str
    amount_fen: int
    claimed_at: dt.datetime


@dataclass(frozen=True, slots=True)
class OwnClaim:
    """A claim as its owner sees it. `lane` is the lane's number."""

    id: uuid.UUID
    packet: uuid.UUID
    amount_fen: int
    currency: str
    lane: int
    epoch: int
    index: int
    state: str | None  # ClaimState, or None: committed only
    committed_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Sent:
    """Whose own packet it is, as those may see it whom it is for. `mine`: the caller's."""

    who: str
    mine: bool
    message: str


@dataclass(frozen=True, slots=True)
class PacketSeen:
    """A packet and what a caller may know of it."""

    packet: Packet
    state: str
    left_count: int
    own: OwnClaim | None
    recent: tuple[ClaimSeen, ...]
    luckiest: ClaimSeen | None
    sent: Sent | None


def masked(subject: str) -> str:
    """`a***e`: enough to recognise oneself, not enough to name another."""
    return f"{subject[0]}***{subject[-1]}" if len(subject) > 2 else f"{subject[0]}***"


def packet_seen(packet_id: uuid.UUID, caller: Caller) -> PacketSeen | None:
    """The packet, if there is one that this app's people may see."""
    view = registry.view(packet_id)
    if view is None or caller.client_app_id not in view.audience.client_apps:
        return None
    participant = caller.participant
    packet = Packet.objects.select_related("sent").get(pk=packet_id)
    finished = view.state in ("sold_out", "closed")
    return PacketSeen(
        packet=packet,
        state=view.state,
        left_count=view.left_count,
        own=_newest(packet_id, participant)
        if view.needs_ticket
        else claim_own(packet_id, participant),
        recent=_recent(packet_id),
        luckiest=(
            _luckiest(packet_id) if finished and packet.count <= LUCKIEST_MAX_PORTIONS else None
        ),
        sent=sent_of(packet, caller),
    )


def packet_new(packet: Packet, sender: Caller) -> PacketSeen:
    """A packet that the caller has just sent, before anybody else can have seen it."""
    return PacketSeen(
        packet=packet,
        state="open",
        left_count=packet.count,
        own=None,
        recent=(),
        luckiest=None,
        sent=sent_of(packet, sender),
    )


def sent_of(packet: Packet, caller: Caller) -> Sent | None:
    """Who has sent it; of a packet for one chat group the others hear neither name nor words."""
    sent: PeoplePacket | None = getattr(packet, "sent", None)
    if sent is None:
        return None
    sender = bytes(sent.participant)
    mine = sender == caller.participant
    if packet.group and packet.group != caller.group and not mine:
        return None
    names = Participant.objects.filter(digest=sender).values_list("subject", flat=True)
    return Sent(who=masked(names.first() or "*"), mine=mine, message=sent.message)


def packet_of_app(packet_id: uuid.UUID, client_app_id: int) -> Packet | None:
    """The packet, unless it is a draft or another app's."""
    return (
        Packet.objects.exclude(state=Packet.State.DRAFT)
        .filter(pk=packet_id, client_apps__contains=[client_app_id])
        .first()
    )


def claim_own(packet_id: uuid.UUID, participant: bytes, serial: int = 0) -> OwnClaim | None:
    """The participant's own claim of this packet: its id follows from whose it is."""
    return _own(
        Claim.objects.filter(pk=ids.claim_id(packet_id, participant, serial))
        .select_related("packet", "lane", "state")
        .first()
    )


def _newest(packet_id: uuid.UUID, participant: bytes) -> OwnClaim | None:
    """Where a person may claim more than once: the latest claim."""
    return _own(claims_of(participant).filter(packet=packet_id).first())


def claims_of(participant: bytes) -> QuerySet[Claim]:
    """All claims of one participant, newest first."""
    return (
        Claim.objects.filter(participant=participant)
        .select_related("packet", "lane", "state")
        .order_by("-committed_at", "-id")
    )


def own_claim(claim: Claim) -> OwnClaim:
    seen = _own(claim)
    assert seen is not None
    return seen


def _own(claim: Claim | None) -> OwnClaim | None:
    if claim is None:
        return None
    state: ClaimState | None = getattr(claim, "state", None)
    return OwnClaim(
        id=claim.pk,
        packet=claim.packet_id,
        amount_fen=claim.amount_fen,
        currency=claim.packet.currency,
        lane=claim.lane.number,
        epoch=claim.epoch,
        index=claim.index,
        state=state.state if state else None,
        committed_at=claim.committed_at,
    )


_RECENT = """
    SELECT claim.participant, claim.amount_fen, claim.committed_at
      FROM (SELECT id FROM packets_lane WHERE packet_id = %s ORDER BY number LIMIT %s) AS lane
     CROSS JOIN LATERAL (
            SELECT participant, amount_fen, committed_at
              FROM packets_claim WHERE lane_id = lane.id ORDER BY position DESC LIMIT %s
           ) AS claim
     ORDER BY claim.committed_at DESC LIMIT %s
"""
_LUCKIEST = """
    SELECT claim.participant, claim.amount_fen, claim.committed_at
      FROM packets_lane AS lane JOIN packets_claim AS claim ON claim.lane_id = lane.id
     WHERE lane.packet_id = %s
     ORDER BY claim.amount_fen DESC, claim.committed_at, claim.id LIMIT 1
"""


def _seen(sql: str, parameters: Sequence[uuid.UUID | int]) -> tuple[ClaimSeen, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows = [(bytes(row[0]), int(row[1]), row[2]) for row in cursor.fetchall()]
    names = {
        bytes(digest): subject
        for digest, subject in Participant.objects.filter(
            digest__in=[row[0] for row in rows]
        ).values_list("digest", "subject")
    }
    return tuple(
        ClaimSeen(masked(names.get(who, "*")), amount_fen, at) for who, amount_fen, at in rows
    )


_recent_cache: dict[uuid.UUID, tuple[float, tuple[ClaimSeen, ...]]] = {}
_recent_lock = threading.Lock()


def _recent(packet_id: uuid.UUID) -> tuple[ClaimSeen, ...]:
    now = time.monotonic()
    known = _recent_cache.get(packet_id)
    if known is not None and now - known[0] < RECENT_LIFETIME_S:
        return known[1]
    seen = _seen(_RECENT, [packet_id, RECENT_LANES, RECENT_CLAIMS, RECENT_CLAIMS])
    with _recent_lock:
        if len(_recent_cache) >= RECENT_PACKETS_MAX:
            _recent_cache.clear()
        _recent_cache[packet_id] = (now, seen)
    return seen


@functools.lru_cache(maxsize=RECENT_PACKETS_MAX)
def _luckiest_final(packet_id: uuid.UUID, claimed_count: int) -> ClaimSeen | None:
    """Kept for good per number of claims: a finished packet's can't change without that number."""
    seen = _seen(_LUCKIEST, [packet_id])
    return seen[0] if seen else None


def _luckiest(packet_id: uuid.UUID) -> ClaimSeen | None:
    counts = Lane.objects.filter(packet_id=packet_id).values_list("claimed_count", flat=True)
    return _luckiest_final(packet_id, sum(counts))


# --- wallets --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WalletBalance:
    """A participant's money. Pending: won, and not in the wallet yet. Held: under review.
    Withdrawing: taken out, and not paid yet."""

    available_fen: int
    pending_fen: int
    held_fen: int
    withdrawing_fen: int
    currency: str


# One snapshot, so that a claim on its way is counted once: as pending or as available.
_BALANCE = """
    SELECT COALESCE((SELECT sum(credits_fen - debits_fen) FROM packets_account
                      WHERE kind = 'wallet' AND owner = %(owner)s AND currency = %(currency)s), 0),
           COALESCE((SELECT sum(claim.amount_fen)
                       FROM packets_claim AS claim
                       JOIN packets_packet AS packet ON packet.id = claim.packet_id
                       LEFT JOIN packets_claimstate AS known ON known.claim_id = claim.id
                      WHERE claim.participant = %(participant)s
                        AND packet.currency = %(currency)s
                        AND COALESCE(known.state, 'parked') = 'parked'), 0),
           COALESCE((SELECT sum(credits_fen - debits_fen) FROM packets_account
                      WHERE kind = 'held' AND owner = %(owner)s AND currency = %(currency)s), 0),
           COALESCE((SELECT sum(amount_fen) FROM packets_payout
                      WHERE participant = %(participant)s AND currency = %(currency)s
                        AND state NOT IN ('paid', 'failed', 'cancelled')), 0)
"""


def wallet_balance(participant: bytes, currency: str = CURRENCY) -> WalletBalance:
    """What the participant has; nothing at all is a balance too."""
    names: dict[str, str | bytes] = {
        "owner": participant.hex(),
        "participant": participant,
        "currency": currency,
    }
    with connection.cursor() as cursor:
        cursor.execute(_BALANCE, names)
        available, pending, held, withdrawing = cursor.fetchone()
    return WalletBalance(int(available), int(pending), int(held), int(withdrawing), currency)


def wallet_transfers(participant: bytes, currency: str = CURRENCY) -> QuerySet[Transfer]:
    """Movements into and out of the participant's wallet, newest first, with both accounts."""
    wallet = Account.objects.filter(
        kind=Account.Kind.WALLET, owner=participant.hex(), currency=currency
    ).values_list("id", flat=True)
    mine = list(wallet)
    return (
        Transfer.objects.filter(Q(credit_account__in=mine) | Q(debit_account__in=mine))
        .select_related("debit_account", "credit_account")
        .order_by("-id")
    )
