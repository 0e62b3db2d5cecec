"""Portions move to where people ask, and nothing is won or lost by it."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection
from django.db.models import Sum

from engine.lib import ids
from engine.lib.redis import stock as stock_client
from engine.lib.sql import load
from packets import demand, proof, rebalancing, recovery, revealed, services, settlement, stock
from packets.claiming import sync
from packets.claiming.effects import Commit, Outcome, Result
from packets.invariants import Verdict, invariants_check
from packets.models import Claim, Lane, LaneEpoch, Packet
from packets.rebalancing import Moved
from tests import world
from tests.guards import guards, without_guard

pytestmark = pytest.mark.django_db(transaction=True)

SQL = load("packets", "rebalance.sql")
PRIZES = {"strategy": "tiers", "tiers": [(500, 3), (50, 20)], "min_fen": 10}


def neighbours(packet: Packet, lane: int, n: int, prefix: str = "person") -> list[str]:
    """So many people whose home is this lane."""
    found: list[str] = []
    number = 0
    while len(found) < n:
        name = f"{prefix}{number}"
        digest = ids.participant_digest(world.APP, name)
        if ids.home_lane(bytes(packet.home_key), digest, packet.lane_count) == lane:
            found.append(name)
        number += 1
    return found


def ask_for(packet: Packet, **asks: int) -> Moved:
    """A move, with so many people waiting at these lanes: `lane0=3`."""
    numbers = {int(name.removeprefix("lane")): people for name, people in asks.items()}
    rebalancing.note(stock_client(), packet.id, numbers)
    return rebalancing.rebalance(stock_client(), packet_id=packet.id)


def again_and_again(packet: Packet, name: str, within_s: float = 10.0) -> Outcome:
    """Somebody who comes back until the answer is final."""
    until = time.monotonic() + within_s
    while True:
        outcome = world.claim(packet, name)
        if outcome.result is not Result.BUSY:
            return outcome
        assert time.monotonic() < until, "still busy"
        time.sleep(0.1)


def counts(packet: Packet) -> list[int]:
    return list(packet.lanes.order_by("number").values_list("count", flat=True))


def broken() -> set[str]:
    return {c.name for c in invariants_check().checks if c.verdict is not Verdict.HOLDS}


# --- people ---------------------------------------------------------------------------------------


def test_whoever_meets_an_empty_lane_gets_a_portion_of_another() -> None:
    packet = world.open_packet(1_000, 10, lane_count=2)
    here = neighbours(packet, 0, 10)
    for name in here[:5]:
        assert world.claim(packet, name).result is Result.WON
    assert world.claim(packet, here[5]).result is Result.BUSY  # nine would have to be wrong
    answers = [again_and_again(packet, name) for name in here[5:]]
    assert [answer.result for answer in answers] == [Result.WON] * 5
    assert world.claim(packet, "somebody").result is Result.SOLD_OUT
    assert counts(packet) == [10, 0] and broken() == set()


def test_the_last_portion_goes_to_the_lane_where_somebody_asks() -> None:
    packet = world.open_packet(4_000, 4, lane_count=4, strategy="fixed")
    first, other = neighbours(packet, 2, 1)[0], neighbours(packet, 3, 5)
    assert world.claim(packet, first).result is Result.WON
    assert [again_and_again(packet, name).result for name in other] == [Result.WON] * 3 + [
        Result.SOLD_OUT
    ] * 2
    assert Claim.objects.aggregate(fen=Sum("amount_fen"))["fen"] == 4_000
    # A person claims at home, for ever.
    assert {claim.lane.number for claim in Claim.objects.select_related("lane")} == {2, 3}
    assert world.claim(packet, other[4]).result is Result.SOLD_OUT
    assert world.claim(packet, first).result is Result.WON


def test_a_packet_with_prizes_moves_ends_and_can_be_recomputed() -> None:
    packet = world.open_packet(20_000, 60, lane_count=4, **PRIZES)
    people = [f"user{i}" for i in range(75)]
    for name in people[:30]:
        world.claim(packet, name)
    assert ask_for(packet, lane0=0, lane1=0) in (Moved.DONE, Moved.NOTHING)
    results = [again_and_again(packet, name).result for name in people]
    assert results.count(Result.WON) == 60 and results.count(Result.SOLD_OUT) == 15
    assert Claim.objects.aggregate(fen=Sum("amount_fen"))["fen"] == 20_000
    assert [Claim.objects.filter(tier=tier).count() for tier in (1, 2)] == [3, 20]
    moves = LaneEpoch.objects.filter(cause=LaneEpoch.Cause.REBALANCED)
    assert moves.exists()
    assert broken() == set()

    services.packet_close(packet_id=packet.id, actor="test")
    settlement.settle_due()
    assert broken() == set()
    record = revealed.record(Packet.objects.get())
    assert proof.recompute(record) == []
    # One fen, or a prize, to another lane than the secret says: it shows.
    epochs = [epoch for lane in record["lanes"] for epoch in lane["epochs"]]
    moved = [epoch for epoch in epochs if epoch["move"] == 1]
    moved[0]["left_fen"] += 1
    moved[1]["left_fen"] -= 1
    assert proof.Fault.MOVE_DIFFERS in {mismatch.fault for mismatch in proof.recompute(record)}


def test_in_redis_a_move_replaces_heads_and_keeps_what_is_committed() -> None:
    packet = world.open_packet(2_000, 20, lane_count=2)
    here = neighbours(packet, 0, 10)
    amounts = [world.claim(packet, name).claim for name in here]
    keys = set(stock_client().keys(f"lane:{{{packet.id.hex}:*:b:*"))
    assert ask_for(packet, lane0=1) is Moved.DONE
    assert set(stock_client().keys(f"lane:{{{packet.id.hex}:*:b:*")) == keys
    assert counts(packet) == [15, 5]
    for lane in (0, 1):
        meta = world.redis_meta(packet, lane)
        assert (meta[b"epoch"], meta[b"left_count"]) == (b"2", b"5")
        assert (meta[b"claimants"], meta[b"state"]) == (b"full", b"open")
    # Repeats are answered from the records that stayed: no commit, no look-up.
    asked: list[Any] = []

    class Watched(sync.SyncDriver):
        def _perform(self, effect: Any) -> Any:
            asked.append(type(effect).__name__)
            return super()._perform(effect)

    view = sync.registry.view(packet.id)
    assert view is not None
    for name, before in zip(here, amounts, strict=True):
        steps = sync.flow.claim(view, world.person(name), sync.ClaimRequest(), b"")
        outcome = Watched().run(steps)
        assert (outcome.result, outcome.claim) == (Result.WON, before)
    assert set(asked) == {"Reserve"}


def test_a_reservation_under_way_is_made_anew_in_the_same_request() -> None:
    packet = world.open_packet(2_000, 20, lane_count=2)
    for name in neighbours(packet, 0, 10):
        world.claim(packet, name)
    (alice,) = neighbours(packet, 1, 1, "alice")

    class Slow(sync.SyncDriver):
        def _perform(self, effect: Any) -> Any:
            if isinstance(effect, Commit) and effect.portion.epoch == 1:
                assert ask_for(packet, lane0=1) is Moved.DONE
            return super()._perform(effect)

    view = sync.registry.view(packet.id)
    assert view is not None
    steps = sync.flow.claim(view, world.person(alice), sync.ClaimRequest(), b"")
    outcome = Slow().run(steps)
    assert outcome.result is Result.WON
    assert outcome.claim is not None and outcome.claim.portion.epoch == 2
    assert set(Lane.objects.values_list("epoch", flat=True)) == {2}  # and nothing was rebuilt


# --- when not -------------------------------------------------------------------------------------


def test_moves_of_a_packet_keep_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebalancing, "BETWEEN_S", 60.0)
    packet = world.open_packet(2_000, 20, lane_count=2)
    for name in neighbours(packet, 0, 10):
        world.claim(packet, name)
    assert ask_for(packet, lane0=1) is Moved.DONE
    for name in neighbours(packet, 0, 15)[10:]:
        assert world.claim(packet, name).result is Result.WON
    assert ask_for(packet, lane0=1) is Moved.NOT_NOW
    # What people asked for isn't forgotten by that.
    monkeypatch.setattr(rebalancing, "BETWEEN_S", 0.0)
    assert rebalancing.rebalance(stock_client(), packet_id=packet.id) is Moved.DONE


def test_a_lane_in_somebodys_hands_is_passed_by(owner_dsn: str) -> None:
    packet = world.open_packet(6_000, 60, lane_count=3)
    for name in neighbours(packet, 0, 20):
        world.claim(packet, name)
    with psycopg.connect(owner_dsn) as link:
        link.execute("SELECT FROM packets_lane WHERE packet_id = %s AND number = 1 FOR UPDATE",
                     (packet.id,))  # fmt: skip
        assert ask_for(packet, lane0=1) is Moved.DONE  # a move that waited would never end here
    assert counts(packet) == [30, 20, 10]


def test_a_lane_that_redis_has_lost_is_mended_and_takes_no_part() -> None:
    packet = world.open_packet(6_000, 60, lane_count=3)
    for name in neighbours(packet, 0, 20):
        world.claim(packet, name)
    stock_client().delete(stock.meta_key(packet.id, 1))
    assert ask_for(packet, lane0=1) is Moved.DONE
    assert counts(packet) == [30, 20, 10]
    assert LaneEpoch.objects.filter(lane__number=1, cause="rebuilt").count() == 1
    assert LaneEpoch.objects.filter(lane__number=1, cause="rebalanced").count() == 0


def test_the_sweep_levels_lanes_that_nobody_asked_at() -> None:
    packet = world.open_packet(2_000, 20, lane_count=2)
    other = world.open_packet(2_000, 20, lane_count=2)
    assert rebalancing.rebalance_due() == 0
    for name in neighbours(packet, 1, 10):
        world.claim(packet, name)
    assert rebalancing.rebalance_due() == 1
    assert counts(packet) == [5, 15] and counts(other) == [10, 10]
    assert broken() == set()


def test_a_move_whose_loader_died_is_finished_by_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packet = world.open_packet(2_000, 20, lane_count=2)
    for name in neighbours(packet, 0, 10):
        world.claim(packet, name)
    with monkeypatch.context() as patch:
        patch.setattr(recovery, "LOADER_LEASE_S", 0)
        patch.setattr(recovery, "finish_epochs", lambda *_args: set())  # it dies here
        assert ask_for(packet, lane0=1) is Moved.DONE
    assert set(Lane.objects.values_list("state", flat=True)) == {"loading"}
    answers = [again_and_again(packet, name) for name in neighbours(packet, 1, 10)]
    assert Result.BUSY not in {answer.result for answer in answers}
    assert broken() == set()


def test_a_crowd_at_an_empty_lane_asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred people, one thread, one attempt; and one more for whoever came meanwhile."""
    seen: list[tuple[str, int]] = []

    def counting(_client: Any, *, packet_id: uuid.UUID) -> Moved:
        wanted = stock_client().hgetall(rebalancing.wanted_key(packet_id))
        seen.append((threading.current_thread().name, sum(map(int, wanted.values()))))
        if len(seen) == 1:
            people.ask(packet_id, 0)
        return Moved.NOTHING

    gathered = threading.Event()  # the moment that a thread waits, ends when all have asked
    waits = SimpleNamespace(sleep=lambda _s: gathered.wait(60))
    monkeypatch.setattr(demand, "time", waits)
    monkeypatch.setattr(rebalancing, "rebalance", counting)
    people, packet_id = demand.Demand(), uuid.uuid4()
    world.together([lambda n=n: people.ask(packet_id, n % 3) for n in range(200)])
    gathered.set()
    until = time.monotonic() + 10
    while people._asks and time.monotonic() < until:
        time.sleep(0.05)
    assert seen == [("rebalance", 200), ("rebalance", 201)]
    # A process asks for a few packets at a time; the people of the others come again.
    gathered.clear()
    for _ in range(demand.MAX_AT_ONCE + 1):
        people.ask(uuid.uuid4(), 0)
    assert len(people._asks) == demand.MAX_AT_ONCE
    gathered.set()


# --- the database's own word ----------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """The arguments of laisee_rebalance for a packet of two lanes; a sound move unless changed."""

    packet: uuid.UUID
    lanes: list[int]
    seen: list[int]
    epochs: list[int]
    left_fen: list[int]
    left_count: list[int]
    held: list[list[int]]
    left: list[list[int]]

    def make(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                rebalancing._MOVE,
                [
                    self.packet, self.lanes, self.seen, self.epochs, self.left_fen,
                    self.left_count, json.dumps(self.held), json.dumps(self.left),
                    uuid.uuid4(), "5 seconds",
                ],
            )  # fmt: skip


def sound(packet: Packet) -> Ask:
    """Three portions of the second lane go to the first; one prize too, where there are any."""
    one, two = packet.lanes.order_by("number")
    moved_fen = 3 * (two.total_fen // two.count)
    held = [one.tiers, two.tiers]
    left = [list(one.tiers), list(two.tiers)]
    if packet.tiers:
        left[0][0], left[1][0] = left[0][0] + 1, left[1][0] - 1
        moved_fen = 500 + 2 * 100
    return Ask(
        packet.id,
        [one.id, two.id],
        [one.epoch, two.epoch],
        [one.epoch + 1, two.epoch + 1],
        [one.total_fen + moved_fen, two.total_fen - moved_fen],
        [one.count + 3, two.count - 3],
        held,
        left,
    )


def two_lanes(**rules: Any) -> Packet:
    return world.open_packet(8_000, 40, lane_count=2, **rules)


def test_a_sound_move_is_made() -> None:
    for packet in (two_lanes(), two_lanes(**PRIZES)):
        sound(packet).make()
        assert counts(packet) == [23, 17]
        prizes = [
            sum(column) for column in zip(*(lane.tiers for lane in packet.lanes.all()), strict=True)
        ]
        assert prizes == [quantity for _fen, quantity in packet.tiers]
        assert broken() == set()


UNSOUND: dict[str, Callable[[Ask], Ask]] = {
    "a fen more": lambda a: replace(a, left_fen=[a.left_fen[0] + 1, a.left_fen[1]]),
    "a fen less": lambda a: replace(a, left_fen=[a.left_fen[0] - 1, a.left_fen[1]]),
    "a portion more": lambda a: replace(a, left_count=[a.left_count[0] + 1, a.left_count[1]]),
    "a prize more": lambda a: replace(a, left=[[a.left[0][0] + 1, a.left[0][1]], a.left[1]]),
    "prizes below zero": lambda a: replace(
        a, left=[[a.left[0][0] + 5, a.left[0][1]], [a.left[1][0] - 5, a.left[1][1]]]
    ),
    "another epoch": lambda a: replace(a, seen=[0, a.seen[1]]),
    "the same epoch again": lambda a: replace(a, epochs=a.seen),
    "the same lane twice": lambda a: replace(a, lanes=[a.lanes[0]] * 2),
    "below the least portion": lambda a: replace(
        a, left_fen=[sum(a.left_fen) - 1_050, 1_050], left_count=[38, 2]
    ),
    "no lane of this packet": lambda a: replace(a, packet=two_lanes(**PRIZES).id),
    "too few tiers": lambda a: replace(a, left=[a.left[0], []]),
}


@pytest.mark.parametrize("what", UNSOUND)
def test_an_unsound_move_is_refused_whole(what: str) -> None:
    packet = two_lanes(**PRIZES)
    before = list(packet.lanes.order_by("id").values())
    with pytest.raises(DatabaseError, match="laisee_rebalance_refused"):
        UNSOUND[what](sound(packet)).make()
    assert list(packet.lanes.order_by("id").values()) == before
    assert LaneEpoch.objects.filter(move__isnull=False).count() == 0


def test_the_application_itself_may_not_change_what_a_lane_holds() -> None:
    packet = two_lanes()
    with pytest.raises(DatabaseError, match="permission denied"):
        Lane.objects.filter(packet=packet).update(total_fen=1)


@pytest.fixture
def guard_off(owner_dsn: str) -> Iterator[Callable[[str], None]]:
    open_ones = []

    def off(name: str) -> None:
        change = world.installed(owner_dsn, without_guard(SQL, name), SQL)
        change.__enter__()
        open_ones.append(change)

    yield off
    for change in open_ones:
        change.__exit__(None, None, None)


def test_every_guard_of_the_function_has_a_control() -> None:
    assert guards(SQL) == {"fence", "sums", "bounds"}


def stale_after_a_claim() -> None:
    """Reckoned before somebody claimed, made afterwards."""
    packet = two_lanes()
    ask = sound(packet)
    world.claim(packet, "alice")
    ask.make()


def stale_after_the_close() -> None:
    """Reckoned before the close, made afterwards: the money has gone back by then."""
    packet = two_lanes()
    ask = sound(packet)
    services.packet_close(packet_id=packet.id, actor="test")
    ask.make()


def a_lane_that_cannot_be_cut() -> None:
    packet = two_lanes(**PRIZES)
    UNSOUND["below the least portion"](sound(packet)).make()
    for lane in packet.lanes.order_by("id"):
        stock_client().delete(stock.meta_key(packet.id, lane.number))
        Lane.objects.filter(id=lane.id).update(loader_until=None)
        recovery.rebuild(stock_client(), lane_id=lane.id, seen_epoch=None)


@pytest.mark.parametrize("story", [stale_after_a_claim, stale_after_the_close,
                                   a_lane_that_cannot_be_cut])  # fmt: skip
def test_what_the_guards_are_for(story: Callable[[], None]) -> None:
    with pytest.raises(DatabaseError, match="laisee_rebalance_refused"):
        story()
    assert broken() == set()


@pytest.mark.control
def test_control_without_the_sums_a_stale_move_makes_money(
    guard_off: Callable[[str], None],
) -> None:
    guard_off("sums")
    stale_after_a_claim()
    assert "lanes_in_packet" in broken()


@pytest.mark.control
def test_control_without_the_fence_a_closed_lane_opens_again(
    guard_off: Callable[[str], None],
) -> None:
    guard_off("fence")
    stale_after_the_close()
    assert "closed_for_good" in broken()


@pytest.mark.control
def test_control_without_the_bounds_a_lane_is_stuck(guard_off: Callable[[str], None]) -> None:
    guard_off("bounds")
    with pytest.raises(stock.splitting.SplittingError):
        a_lane_that_cannot_be_cut()


# --- all at once ----------------------------------------------------------------------------------


def test_claims_moves_rebuilds_and_the_close_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes between what, the books are right and the proof holds."""
    monkeypatch.setattr(rebalancing, "BETWEEN_S", 0.0)
    # Whether anything moves while people claim is chance; that nothing does in five nights is not.
    for _ in range(5):
        a_night()
        if LaneEpoch.objects.filter(cause="rebalanced").exists():
            return
    pytest.fail("nothing moved")


def a_night() -> None:
    packet = world.open_packet(50_000, 300, lane_count=5, **PRIZES)
    won: list[Outcome] = []
    ended = {"now": False}

    def claims(worker: int) -> None:
        for number in range(60):
            try:
                outcome = world.claim(packet, f"user{worker}-{number}")
            except sync.Unavailable:
                continue
            if outcome.result is Result.WON:
                won.append(outcome)

    def moving() -> None:
        lane = 0
        while not ended["now"]:
            lane = (lane + 1) % 5
            ask_for(packet, **{f"lane{lane}": 2})

    def rebuilds() -> None:
        while not ended["now"]:
            for lane in packet.lanes.all():
                recovery.rebuild(stock_client(), lane_id=lane.id, seen_epoch=lane.epoch)
                time.sleep(0.05)

    def all_claims() -> None:
        try:
            world.together([lambda w=w: claims(w) for w in range(6)], threads=6)
            services.packet_close(packet_id=packet.id, actor="test")
        finally:
            ended["now"] = True

    errors = [e for e in world.together([all_claims, moving, rebuilds], threads=3) if e is not None]
    assert errors == []
    rows = dict(Claim.objects.filter(packet=packet).values_list("id", "amount_fen"))
    told = {o.claim.id: o.claim.portion.amount_fen for o in won if o.claim is not None}
    assert told.items() <= rows.items() and len(told) > 100
    settlement.settle_due()
    assert broken() == set()
    assert proof.recompute(revealed.record(Packet.objects.get(id=packet.id))) == []
