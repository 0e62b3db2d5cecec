"""What must be true after every step, asked of Postgres and Redis themselves.

It knows nothing of how claims work: only what people were told, what the tables hold, and what they
held a step ago.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from redis import Redis

from engine.lib import ids
from packets import stock
from packets.claiming.effects import Outcome, Portion, Result, Slot
from packets.claiming.journal import Journal

_READ = """
SELECT l.id, l.number, l.epoch, l.state, l.total_fen, l.count, l.claimed_fen, l.claimed_count,
       p.state, p.total_fen, p.count, p.min_fen,
       p.state = 'open' AND p.closes_at + interval '5 seconds' > clock_timestamp()
       AND (SELECT bool_and(g.state = 'open') FROM packets_gate g
             WHERE g.id = p.gate_id OR g.key = 'all'),
       (SELECT sum(t.amount_fen)::bigint FROM packets_transfer t
         WHERE t.reference = 'close:' || replace(p.id::text, '-', '')),
       c.id, c.participant, c.serial, c.epoch, c.index, c.amount_fen, c.tier, c.position
  FROM packets_packet p JOIN packets_lane l ON l.packet_id = p.id
  LEFT JOIN packets_claim c ON c.lane_id = l.id
 WHERE p.id = %s ORDER BY l.number, c.position
"""
FINAL = (Result.SOLD_OUT, Result.ENDED)


class Violation(AssertionError):
    """A promise was broken."""


def holds(condition: object, promise: str) -> None:
    if not condition:
        raise Violation(promise)


@dataclass(frozen=True)
class Lane:
    id: int
    number: int
    epoch: int
    state: str
    total_fen: int
    count: int
    claimed_fen: int
    claimed_count: int
    packet_state: str
    packet_fen: int
    packet_count: int
    min_fen: int
    open: bool
    refund_fen: int | None


@dataclass(frozen=True)
class Claim:
    id: uuid.UUID
    lane_id: int
    participant: bytes
    serial: int
    portion: Portion
    position: int


@dataclass
class Oracle:
    """Remembers a packet's last state and every answer."""

    packet: uuid.UUID
    home_key: bytes
    journal: Journal
    master: Redis
    lanes: list[Lane] = field(default_factory=list)
    claims: dict[uuid.UUID, Claim] = field(default_factory=dict)
    told: dict[uuid.UUID, tuple[Result, Portion | None]] = field(default_factory=dict)
    heads: dict[int, int] = field(default_factory=dict)

    def read(self) -> tuple[list[Lane], dict[uuid.UUID, Claim]]:
        lanes: dict[int, Lane] = {}
        claims: dict[uuid.UUID, Claim] = {}
        for row in self.journal._open().execute(_READ, [self.packet]).fetchall():
            lane = lanes.setdefault(row[0], Lane(*row[:14]))
            claim_id, who, serial, epoch, index, amount_fen, tier, position = row[14:]
            if claim_id is not None:
                holds(claim_id not in claims, "one claim per slot")
                portion = Portion(epoch, index, amount_fen, tier)
                claim = Claim(claim_id, lane.id, bytes(who), serial, portion, position)
                claims[claim_id] = claim
        return list(lanes.values()), claims

    def answered(self, slot: Slot, outcome: Outcome, had_won: bool) -> None:
        """Somebody was told something, and `check` has just read what is true.

        `had_won`: the claim was there when the request began.
        """
        result = outcome.result
        claim = self.claims.get(slot.claim_id)
        before = self.told.get(slot.claim_id)
        if result is Result.WON:
            holds(outcome.claim is not None and claim is not None, "an answered win is committed")
            assert outcome.claim is not None and claim is not None
            holds(outcome.claim.id == slot.claim_id, "a win has its own id")
            holds(outcome.claim.portion == claim.portion, "a win says what Postgres holds")
            holds(before is None or before[0] is Result.WON, "a final refusal is final")
            self.told[slot.claim_id] = (result, claim.portion)
            return
        holds(not had_won or result is Result.BUSY, f"a win beats every refusal ({result})")
        if result in FINAL:
            full = all(lane.claimed_count >= lane.count for lane in self.lanes)
            shut = any(lane.packet_state == "closed" for lane in self.lanes)
            holds(full or shut, f"{result} is said by Postgres's word alone")
            holds(claim is None, "whoever hears a final refusal has no claim")
            self.told[slot.claim_id] = (result, None)

    def check(self, *, redis_changed: bool) -> None:
        """After a step. `redis_changed`: the step was a fault that may put an older stock there."""
        lanes, claims = self.read()
        for known in self.claims.values():
            holds(claims.get(known.id) == known, "a claim stays as it is")
        self._portions(lanes, claims)
        new = [claim for claim in claims.values() if claim.id not in self.claims]
        before = {lane.id: lane for lane in self.lanes}
        for claim in new if before else ():
            seen = before[claim.lane_id]
            holds(claim.portion.epoch >= seen.epoch, "nothing of an epoch after the next opened")
            holds(seen.open, "nothing is committed while the packet is shut")
            holds(
                self.told.get(claim.id, (None,))[0] not in FINAL, "a final refusal never turns won"
            )
        for claim_id, (result, portion) in self.told.items():
            if result is Result.WON:
                holds(claim_id in claims and claims[claim_id].portion == portion, "wins stay")
        self._money(lanes)
        self._redis(lanes, claims, redis_changed)
        self.lanes, self.claims = lanes, claims

    def _portions(self, lanes: list[Lane], claims: Mapping[uuid.UUID, Claim]) -> None:
        portions = [(c.lane_id, c.portion.epoch, c.portion.index) for c in claims.values()]
        holds(len(set(portions)) == len(portions), "no portion belongs to two people")
        slots = {(c.participant, c.serial) for c in claims.values()}
        holds(len(slots) == len(claims), "one claim per slot")
        for lane in lanes:
            mine = [c for c in claims.values() if c.lane_id == lane.id]
            fen = sum(c.portion.amount_fen for c in mine)
            left = lane.count - len(mine)
            holds(fen <= lane.total_fen and left >= 0, "never oversold")
            holds((fen, len(mine)) == (lane.claimed_fen, lane.claimed_count), "counters agree")
            holds(lane.total_fen - fen >= left * lane.min_fen, "enough is left for the others")
            holds(left or fen == lane.total_fen, "the last portion takes the rest")
            epochs = [c.portion.epoch for c in mine]
            holds(epochs == sorted(epochs), "epochs follow one another")
            for claim in mine:
                home = ids.home_lane(self.home_key, claim.participant, len(lanes))
                holds(home == lane.number, "a claim lies in its home lane")

    def _money(self, lanes: list[Lane]) -> None:
        one = lanes[0]
        claimed = sum(lane.claimed_fen for lane in lanes)
        holds(sum(lane.total_fen for lane in lanes) == one.packet_fen, "lanes hold the packet")
        holds(sum(lane.count for lane in lanes) == one.packet_count, "lanes hold the portions")
        shut = one.packet_state == "closed"
        expected = one.packet_fen - claimed if shut else 0
        holds((one.refund_fen or 0) == expected, "what nobody claimed goes back once")

    def _redis(
        self, lanes: list[Lane], claims: Mapping[uuid.UUID, Claim], redis_changed: bool
    ) -> None:
        by_slot = {(c.participant, c.serial): c for c in claims.values()}
        pipeline = self.master.pipeline(transaction=False)
        for lane in lanes:
            pipeline.hget(stock.meta_key(self.packet, lane.number), "epoch")
            pipeline.hgetall(stock.bucket_key(self.packet, lane.number, 0))
        found = pipeline.execute()
        for lane, epoch, records in zip(lanes, found[::2], found[1::2], strict=True):
            head = int(epoch or 0)
            back = head < self.heads.get(lane.id, 0)
            holds(redis_changed or not back, "a slow loader replaces nothing")
            self.heads[lane.id] = head
            for name, text in records.items():
                portion, committed_ms = stock.record_parts(text)
                claim = by_slot.get(stock.member_parts(name))
                holds(
                    not committed_ms or (claim is not None and claim.portion == portion),
                    "a marked record is what Postgres holds",
                )
