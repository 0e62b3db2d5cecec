"""Commit and reveal: anyone can check that no portion of a closed packet was altered.

This file owns what is committed to when a packet is created, how the keys of its lanes follow from
the seed and the beacon, and the recomputation of every portion from the revealed record. It is
pure and reads no database. The invariant it keeps: `recompute` finds nothing wrong in a record
exactly when every claim is the portion that the committed rules, seed and beacon give at its place.

What it proves is that portions were not altered afterwards. It cannot stop an insider who holds a
lane's key from choosing the moment at which a friend claims. See docs/adr/0003-splitting.md.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from packets import moves
from packets.splitting import (
    LaneShare,
    Portion,
    Rules,
    SplittingError,
    Strategy,
    Tier,
    advance,
    lanes,
    portion,
    portion_accepts,
    start,
    validate,
)

_WholeNumber = Annotated[int, msgspec.Meta(ge=0)]


class Fault(StrEnum):
    """Everything a recomputation can find wrong."""

    MALFORMED = "malformed"
    NOT_REVEALED = "not_revealed"
    RULES_INVALID = "rules_invalid"
    RULES_DIFFER = "rules_differ"
    COMMITMENT_DIFFERS = "commitment_differs"
    BEACON_DIFFERS = "beacon_differs"
    LANES_DIFFER = "lanes_differ"
    EPOCH_START_DIFFERS = "epoch_start_differs"
    MOVE_DIFFERS = "move_differs"
    EPOCH_INFEASIBLE = "epoch_infeasible"
    CLAIM_UNPLACED = "claim_unplaced"
    CLAIM_REPEATED = "claim_repeated"
    AMOUNT_DIFFERS = "amount_differs"
    TIER_DIFFERS = "tier_differs"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that is wrong. `lane`, `epoch` and `index` say where, as far as that applies."""

    fault: Fault
    message: str
    lane: int | None = None
    epoch: int | None = None
    index: int | None = None


# --- what is committed, and the keys that follow --------------------------------------------------


def rules_json(rules: Rules, currency: str) -> dict[str, Any]:
    """The rules as they stand in a proof and in the canonical text."""
    return {
        "strategy": str(rules.strategy),
        "total_fen": rules.total_fen,
        "count": rules.count,
        "min_fen": rules.min_fen,
        "max_fen": rules.max_fen,
        "evenness": rules.evenness,
        "tiers": [[tier.amount_fen, tier.quantity] for tier in rules.tiers],
        "remainder": str(rules.remainder),
        "currency": currency,
    }


def canonical_rules(
    packet_hex: str, rules: Rules, lanes: Sequence[LaneShare], currency: str
) -> str:
    """The one text of a packet's rules: JSON, sorted keys, no spaces. `rules` are effective ones.

    It holds the lanes' shares, so it tells which lane holds an odd grand prize: publish it with the
    seed, not before.
    """
    fields = rules_json(rules, currency)
    fields["packet"] = packet_hex
    fields["lanes"] = [[share.total_fen, share.count, list(share.tiers)] for share in lanes]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def commitment(seed: bytes, canonical: str) -> str:
    """What is published when the packet is created: SHA-256 of seed and canonical rules, in hex."""
    return hashlib.sha256(seed + canonical.encode()).hexdigest()


def stream_seed(seed: bytes, beacon: bytes) -> bytes:
    """The seed that the portions come from; `beacon` is a value that nobody had at creation."""
    return hmac.new(seed, beacon, hashlib.sha256).digest()


def lane_key(stream: bytes, packet_hex: str, lane_number: int, epoch: int) -> str:
    """The key of one lane in one epoch, in hex: the only secret of a packet that enters Redis."""
    place = f"{packet_hex}:{lane_number}:{epoch}"
    return hmac.new(stream, place.encode(), hashlib.sha256).hexdigest()


# --- the revealed record --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RulesRecord:
    """`rules_json`, read back."""

    strategy: Strategy
    total_fen: int
    count: int
    min_fen: int
    max_fen: int | None
    evenness: int
    tiers: tuple[tuple[int, int], ...]
    remainder: Strategy
    currency: str

    def rules(self) -> Rules:
        tiers = tuple(Tier(amount_fen, quantity) for amount_fen, quantity in self.tiers)
        return Rules(
            self.strategy,
            self.total_fen,
            self.count,
            self.min_fen,
            self.max_fen,
            self.evenness,
            tiers,
            self.remainder,
        )


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What a lane's epoch began with. Its cause and time are shown to people, not recomputed.

    `move`: what was left of the lanes that have an epoch of this number was put together and dealt
    anew (packets/moves.py).
    """

    epoch: _WholeNumber
    left_fen: _WholeNumber
    left_count: _WholeNumber
    tiers_left: tuple[_WholeNumber, ...]
    move: _WholeNumber | None = None


@dataclass(frozen=True, slots=True)
class LaneRecord:
    """One lane: its share of the packet when that was opened, and its epochs."""

    lane: _WholeNumber
    total_fen: _WholeNumber
    count: _WholeNumber
    tiers: tuple[_WholeNumber, ...]
    epochs: tuple[EpochRecord, ...]


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """One committed claim. `index` is unique only together with lane and epoch."""

    lane: _WholeNumber
    epoch: _WholeNumber
    index: _WholeNumber
    amount_fen: _WholeNumber
    tier: _WholeNumber


@dataclass(frozen=True, slots=True)
class ProofRecord:
    """All that is revealed when every lane is closed. Bytes are in hex."""

    packet: str
    rules: RulesRecord
    canonical: str
    commitment: str
    seed: str | None
    beacon: str | None
    beacon_commitment: str | None
    lanes: tuple[LaneRecord, ...]
    claims: tuple[ClaimRecord, ...]


# --- recomputation --------------------------------------------------------------------------------


def recompute(proof: Mapping[str, Any]) -> list[Mismatch]:
    """Everything that is wrong with a revealed proof; an empty list means that it holds.

    Every epoch is walked from its recorded start, index by index. A portion that was reserved but
    never committed is a gap, and the walk goes through it. Where another mathematics library may
    have rounded a portion to its neighbour, that is accepted and the walk goes on from the record.
    """
    try:
        record = msgspec.convert(dict(proof), ProofRecord)
        if record.seed is None or record.beacon is None or record.beacon_commitment is None:
            return [Mismatch(Fault.NOT_REVEALED, "The seed or the beacon is not revealed yet.")]
        seed, beacon = bytes.fromhex(record.seed), bytes.fromhex(record.beacon)
    except (msgspec.ValidationError, ValueError) as error:
        return [Mismatch(Fault.MALFORMED, f"The proof cannot be read: {error}.")]
    rules = record.rules.rules()
    try:
        validate(rules)
    except SplittingError as error:
        return [Mismatch(Fault.RULES_INVALID, error.message)]
    if any(len(lane.tiers) != len(rules.tiers) for lane in record.lanes):
        return [Mismatch(Fault.MALFORMED, "Every lane needs one quantity for every tier.")]
    found = [*_check_promises(record, rules, seed, beacon), *_check_places(record)]
    claims: defaultdict[tuple[int, int], list[ClaimRecord]] = defaultdict(list)
    for claim in record.claims:
        claims[claim.lane, claim.epoch].append(claim)
    stream = stream_seed(seed, beacon)
    parts: defaultdict[int, list[_Part]] = defaultdict(list)
    for lane in record.lanes:
        found += _check_epoch_starts(lane, claims, parts)
        for epoch in lane.epochs:
            key = lane_key(stream, record.packet, lane.lane, epoch.epoch)
            found += _check_epoch(rules, lane.lane, epoch, key, claims[lane.lane, epoch.epoch])
    found += _check_moves(rules, record.packet, stream, parts)
    return found


def _check_promises(
    record: ProofRecord, rules: Rules, seed: bytes, beacon: bytes
) -> Iterator[Mismatch]:
    """Commitment, beacon and rules are those of the creation; the lanes make up the packet."""
    if commitment(seed, record.canonical) != record.commitment:
        yield Mismatch(
            Fault.COMMITMENT_DIFFERS, "Seed and canonical rules do not give the commitment."
        )
    if hashlib.sha256(beacon).hexdigest() != record.beacon_commitment:
        yield Mismatch(Fault.BEACON_DIFFERS, "The beacon does not give its published hash.")
    shares = [LaneShare(lane.total_fen, lane.count, lane.tiers) for lane in record.lanes]
    stated = canonical_rules(record.packet, rules, shares, record.rules.currency)
    if stated != record.canonical:
        yield Mismatch(
            Fault.RULES_DIFFER, f"The canonical rules should be {stated}, not {record.canonical}."
        )
    quantities = [tier.quantity for tier in rules.tiers]
    dealt = [sum(share.tiers[at] for share in shares) for at in range(len(quantities))]
    total_fen, count = sum(s.total_fen for s in shares), sum(s.count for s in shares)
    if (total_fen, count, dealt) != (rules.total_fen, rules.count, quantities):
        yield Mismatch(
            Fault.LANES_DIFFER,
            f"The lanes hold {total_fen} fen, {count} portions and prizes {dealt}; the packet "
            f"has {rules.total_fen}, {rules.count} and {quantities}.",
        )
    elif shares != _dealt_by(seed, rules, len(shares)):
        yield Mismatch(Fault.LANES_DIFFER, "The lanes' shares are not those that the seed deals.")
    numbers = [lane.lane for lane in record.lanes]
    if numbers != list(range(len(numbers))):
        yield Mismatch(Fault.LANES_DIFFER, f"Lanes must be numbered from 0, not {numbers}.")


def _dealt_by(seed: bytes, rules: Rules, lane_count: int) -> list[LaneShare]:
    """Which lane an odd prize goes to is the seed's choice, not the operator's."""
    try:
        return lanes(rules, lane_count, seed)
    except SplittingError:
        return []


def _check_places(record: ProofRecord) -> Iterator[Mismatch]:
    """Every claim stands at a place that exists, and no two at the same."""
    sizes = {
        (lane.lane, epoch.epoch): epoch.left_count for lane in record.lanes for epoch in lane.epochs
    }
    seen: set[tuple[int, int, int]] = set()
    for claim in record.claims:
        place = claim.lane, claim.epoch, claim.index
        if claim.index >= sizes.get(place[:2], 0):
            yield Mismatch(Fault.CLAIM_UNPLACED, "No such portion exists.", *place)
        if place in seen:
            yield Mismatch(Fault.CLAIM_REPEATED, "Two claims hold the same portion.", *place)
        seen.add(place)


@dataclass(frozen=True, slots=True)
class _Part:
    """A lane's part in a move: what it put in, and what it says that it got."""

    lane: int
    epoch: int
    put_in: LaneShare
    got: LaneShare


def _check_epoch_starts(
    lane: LaneRecord,
    claims: Mapping[tuple[int, int], Sequence[ClaimRecord]],
    parts: defaultdict[int, list[_Part]],
) -> Iterator[Mismatch]:
    """The first epoch begins with the lane's share, each later one with what was not claimed.

    Or with what a move gave the lane: those parts are put aside, for all lanes of a move together.
    """
    left = LaneShare(lane.total_fen, lane.count, lane.tiers)
    previous = -1
    for epoch in lane.epochs:
        stated = LaneShare(epoch.left_fen, epoch.left_count, epoch.tiers_left)
        if epoch.move is not None and len(stated.tiers) == len(left.tiers):
            parts[epoch.move].append(_Part(lane.lane, epoch.epoch, left, stated))
            left = stated
        if stated != left or epoch.epoch <= previous:
            yield Mismatch(
                Fault.EPOCH_START_DIFFERS,
                f"The epoch should follow {previous} and begin with {left}, not {stated}.",
                lane.lane,
                epoch.epoch,
            )
        previous = epoch.epoch
        left = _after(left, claims.get((lane.lane, epoch.epoch), ()))


def _after(left: LaneShare, claims: Sequence[ClaimRecord]) -> LaneShare:
    """What these claims leave of it."""
    tiers = list(left.tiers)
    for claim in claims:
        if 1 <= claim.tier <= len(tiers):
            tiers[claim.tier - 1] -= 1
    given_fen = sum(claim.amount_fen for claim in claims)
    return LaneShare(left.total_fen - given_fen, left.count - len(claims), tuple(tiers))


def _check_moves(
    rules: Rules, packet_hex: str, stream: bytes, parts: Mapping[int, Sequence[_Part]]
) -> Iterator[Mismatch]:
    """Every move gave each lane the part that the secret deals for its number of portions."""
    for move, of_move in sorted(parts.items()):
        pool = moves.pooled([part.put_in for part in of_move])
        counts = {part.lane: part.got.count for part in of_move}
        try:
            dealt = moves.deal(rules, pool, counts, moves.move_key(stream, packet_hex, move))
        except ValueError as error:
            yield Mismatch(Fault.MOVE_DIFFERS, f"Move {move}: {error}.")
            continue
        for part, share in zip(of_move, dealt, strict=True):
            if part.got != share:
                yield Mismatch(
                    Fault.MOVE_DIFFERS,
                    f"Move {move} should give the lane {share}, not {part.got}.",
                    part.lane,
                    part.epoch,
                )


def _check_epoch(
    rules: Rules, lane: int, epoch: EpochRecord, key: str, claims: Sequence[ClaimRecord]
) -> Iterator[Mismatch]:
    """Walk the epoch up to its last claim and compare amounts and tiers."""
    claimed = {claim.index: claim for claim in claims if claim.index < epoch.left_count}
    try:
        state = start(rules, epoch.left_fen, epoch.left_count, epoch.tiers_left)
    except SplittingError as error:
        yield Mismatch(Fault.EPOCH_INFEASIBLE, error.message, lane, epoch.epoch)
        return
    for index in range(max(claimed, default=-1) + 1):
        expected, after = portion(rules, state, key)
        claim = claimed.get(index)
        if claim is not None and claim.tier != expected.tier:
            yield Mismatch(
                Fault.TIER_DIFFERS,
                f"The portion is of tier {expected.tier}, not {claim.tier}.",
                lane,
                epoch.epoch,
                index,
            )
        if claim is not None and claim.amount_fen != expected.amount_fen:
            if portion_accepts(rules, state, key, claim.amount_fen):
                after = advance(state, Portion(claim.amount_fen, expected.tier))
            else:
                yield Mismatch(
                    Fault.AMOUNT_DIFFERS,
                    f"The portion is {expected.amount_fen} fen, not {claim.amount_fen}.",
                    lane,
                    epoch.epoch,
                    index,
                )
        state = after
