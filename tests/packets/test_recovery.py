"""Redis is lost, stale, or run by an old master: rebuilds that end, and don't storm (7)."""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from typing import Any

import pytest
from django.core.management import call_command
from django.db.models import Sum

from engine.lib import clock, lua
from engine.lib.redis import stock as stock_client
from packets import claimants, recovery, stock
from packets.claiming import sync
from packets.claiming.effects import ClaimRequest, Result
from packets.claiming.registry import Registry
from packets.models import Claim, Lane, LaneEpoch, Packet
from tests import world
from tests.guards import without_guard
from tests.packets.test_critical import claim_and_die_before_commit

pytestmark = pytest.mark.django_db(transaction=True)


def rebuild(packet: Packet, seen_epoch: int | None) -> bool:
    return recovery.rebuild(stock_client(), lane_id=packet.lanes.get().id, seen_epoch=seen_epoch)


def claims_sum(packet: Packet) -> int:
    total: int = Claim.objects.filter(packet=packet).aggregate(fen=Sum("amount_fen"))["fen"]
    return total


@pytest.mark.parametrize("strategy", ["fixed", "lucky", "double_mean", "tiers"])
def test_a_lane_rebuilt_again_and_again_ends_at_its_total(strategy: str) -> None:
    tiers = [(3_000, 1), (200, 4)] if strategy == "tiers" else []
    packet = world.open_packet(10_001, 30, strategy=strategy, tiers=tiers)
    told = {}
    for i in range(30):
        if i % 7 == 3:
            world.wipe_redis()
        told[i] = world.claim(packet, f"user{i}")
    assert {o.result for o in told.values()} == {Result.WON}
    assert claims_sum(packet) == 10_001
    assert Lane.objects.get().epoch == LaneEpoch.objects.count() == 5
    for i, outcome in told.items():
        assert world.claim(packet, f"user{i}").claim == outcome.claim
    if tiers:
        assert Claim.objects.filter(tier=1).count() == 1
        assert Claim.objects.filter(tier=2).count() == 4


def test_a_loader_that_dies_is_succeeded_after_its_lease() -> None:
    """(a) The epoch is opened in Postgres and never loaded: nobody hangs for ever."""
    packet = world.open_packet(1_000, 10)
    lane = packet.lanes.get()
    opened = recovery.open_epoch(lane.id, above=0, cause=LaneEpoch.Cause.REBUILT, seen=lane)
    assert opened is not None

    # Redis still serves epoch 1; its reservations are fenced, and the client is asked to wait.
    assert world.claim(packet, "alice").result is Result.BUSY
    assert not Claim.objects.exists()

    Lane.objects.update(loader_until=clock.now() - dt.timedelta(seconds=1))
    assert world.claim(packet, "alice").result is Result.WON
    assert Lane.objects.get().epoch == Claim.objects.get().epoch == 3


def test_an_old_master_does_not_fence_the_healthy_path_again_and_again() -> None:
    """(b) Many claims meet the fence at once; one new epoch comes of it."""
    packet = world.open_packet(100_000, 500)
    meta = world.redis_meta(packet)
    rebuild(packet, 1)
    stock_client().delete(stock.meta_key(packet.id, 0))
    stock_client().hset(stock.meta_key(packet.id, 0), mapping=meta)  # the zombie, epoch 1
    world.together([lambda i=i: world.claim(packet, f"user{i}") for i in range(100)], threads=16)
    assert Lane.objects.get().epoch == 3
    assert sum(world.claim(packet, f"user{i}").result == "won" for i in range(100)) == 100
    assert Lane.objects.get().epoch == 3


class TestTwoLoaders:
    """(c) The slow loader must not put its older stock over the fresh one."""

    def slow_loader_comes_late(self, packet: Packet) -> int:
        lane = packet.lanes.get()
        slow = recovery.open_epoch(lane.id, above=0, cause=LaneEpoch.Cause.REBUILT, seen=lane)
        assert slow is not None
        Lane.objects.update(loader_until=clock.now() - dt.timedelta(seconds=1))
        assert rebuild(packet, None)
        assert not recovery.finish_epoch(stock_client(), *slow)
        held = stock.read(stock_client(), packet.id, 0)
        assert held is not None
        return held.epoch

    def test_the_slow_one_changes_nothing(self) -> None:
        assert self.slow_loader_comes_late(world.open_packet()) == 3

    def test_control_without_the_guard_it_overwrites(self, monkeypatch: pytest.MonkeyPatch) -> None:
        script = lua.load("packets", "load")
        careless = dataclasses.replace(
            script, text=without_guard(script.text, "load"), sha="1" * 40
        )
        load = lua.load
        monkeypatch.setattr(
            lua, "load", lambda app, name: careless if name == "load" else load(app, name)
        )
        packet = world.open_packet()
        lane = packet.lanes.get()
        slow = recovery.open_epoch(lane.id, above=0, cause=LaneEpoch.Cause.REBUILT, seen=lane)
        Lane.objects.update(loader_until=clock.now() - dt.timedelta(seconds=1))
        rebuild(packet, None)
        assert slow is not None
        recovery.finish_epoch(stock_client(), *slow)
        held = stock.read(stock_client(), packet.id, 0)
        assert held is not None and held.epoch == 2


def test_a_reservation_of_an_older_epoch_is_void() -> None:
    """(d) Alice's uncommitted portion of epoch 1 isn't committed with the index of epoch 2."""
    packet = world.open_packet(1_000, 5)
    claim_and_die_before_commit(packet, "alice")
    assert rebuild(packet, 1)
    told = world.claim(packet, "alice")
    assert told.claim is not None and told.claim.portion.epoch == 2
    for name in ("b", "c", "d", "e"):
        world.claim(packet, name)
    assert claims_sum(packet) == 1_000


def test_random_ids_cost_one_look_up_and_no_rebuild(
    django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(e) An id that isn't in the registry never reaches Redis, a lock or a rebuild."""
    memory = Registry()
    unknown = uuid.uuid4()
    with django_assert_num_queries(1):
        for _ in range(50):
            assert memory.view(unknown) is None
    monkeypatch.setattr("packets.claiming.registry.MAX_PACKETS", 10)
    monkeypatch.setattr("packets.claiming.registry.MAX_UNKNOWN", 10)
    for _ in range(50):
        memory.view(uuid.uuid4())
    assert len(memory._views) == 20


def test_a_closed_packet_is_not_rebuilt() -> None:
    packet = world.open_packet()
    world.claim(packet, "alice")
    world.services.packet_close(packet_id=packet.id, actor="test")
    world.wipe_redis()
    world.forget_views()
    for _ in range(5):
        assert world.claim(packet, "bob").result is Result.ENDED
    assert Lane.objects.get().epoch == 1
    assert not stock_client().exists(stock.meta_key(packet.id, 0))


def test_a_healthy_lane_is_left_alone() -> None:
    packet = world.open_packet()
    assert not rebuild(packet, None)
    assert not rebuild(packet, 0)
    assert Lane.objects.get().epoch == 1


def test_every_attempt_is_above_redis_too() -> None:
    """Postgres was restored from an old backup: Redis is ahead of it."""
    packet = world.open_packet()
    stock_client().hset(stock.meta_key(packet.id, 0), "epoch", 41)
    assert world.claim(packet, "alice").result is Result.WON
    assert Lane.objects.get().epoch == 42


class TestClaimants:
    def test_while_claimants_are_not_loaded_postgres_is_asked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lane reopens at once; a winner who asks again burns no portion."""
        monkeypatch.setattr(claimants, "INLINE", 0)
        monkeypatch.setattr(claimants, "wake", lambda lane_id: None)
        packet = world.open_packet(10_000, 20)
        told = {name: world.claim(packet, name) for name in ("alice", "bob")}
        world.wipe_redis()

        for name, outcome in told.items():
            assert world.claim(packet, name).claim == outcome.claim
        assert world.claim(packet, "carol").result is Result.WON
        assert world.redis_meta(packet)[b"claimants"] == b"partial"
        for name, outcome in told.items():  # who won before is looked up, and cut nothing
            assert world.claim(packet, name).claim == outcome.claim
        assert world.redis_meta(packet)[b"index"] == b"1"  # carol's; nobody else took one

        monkeypatch.undo()
        assert recovery.stranded_adopt_due() == 0  # the sweep loads what was left out
        assert world.redis_meta(packet)[b"claimants"] == b"full"
        assert world.claim(packet, "alice").claim == told["alice"].claim

    def test_many_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(claimants, "CHUNK", 7)
        packet = world.open_packet(10_000, 50)
        for i in range(40):
            world.claim(packet, f"user{i}")
        world.wipe_redis()
        assert rebuild(packet, None)
        records = [
            stock.record_parts(text)
            for key in stock_client().scan_iter("*:b:*")
            for text in stock_client().hvals(key)
        ]
        assert len(records) == 40 and all(ms > 0 for _, ms in records)


def test_an_empty_lane_below_its_slots_is_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reservation's record itself is gone (evicted, edited): nobody can complete it."""
    monkeypatch.setattr(recovery, "ADOPT_AFTER_S", 0)
    monkeypatch.setattr(recovery, "STRANDED_REBUILD_AFTER_S", 0)
    packet = world.open_packet(1_000, 1)
    claim_and_die_before_commit(packet, "ann")
    for key in stock_client().scan_iter("*:b:*"):
        stock_client().delete(key)
    recovery.stranded_adopt_due()
    recovery.stranded_adopt_due()
    assert world.claim(packet, "ben").result is Result.WON


def test_restore_reopens_every_lane_and_forgets_what_the_books_do_not_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    packet = world.open_packet(10_000, 20, lane_count=2)
    for i in range(6):
        world.claim(packet, f"user{i}")
    # The backup is older than bob's win: Redis remembers it, Postgres doesn't.
    view = sync.registry.view(packet.id)
    assert view is not None
    bob = sync.flow.slot_of(view, world.person("bob").participant)
    stock_client().hset(
        stock.bucket_key(packet.id, bob.lane_number, bob.bucket),
        bob.participant,  # type: ignore[arg-type]
        "1,9,500,0,1700000000000",
    )
    told = sync.claim(packet.id, world.person("bob"), ClaimRequest())
    assert (
        told is not None
        and told[0].result is Result.WON
        and not Claim.objects.filter(id=bob.claim_id).exists()
    )

    call_command("reopen_lanes")

    assert "2 lanes" in capsys.readouterr().out
    assert sorted(Lane.objects.values_list("epoch", "state")) == [(2, "open"), (2, "open")]
    assert LaneEpoch.objects.filter(cause="restored").count() == 2
    for i in range(60):
        world.claim(packet, f"late{i}")
    assert claims_sum(packet) == 10_000 and Claim.objects.count() == 20
