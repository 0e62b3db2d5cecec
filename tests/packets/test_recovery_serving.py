"""A packet with very many claims is rebuilt while it, and every other one, is served."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.lib import clock
from engine.lib.redis import stock as stock_client
from engine.run.valkey import ValkeyServer
from packets import claimants, recovery, stock
from packets.claiming import circuit
from packets.claiming.effects import Result
from packets.models import Claim, Lane, LaneEpoch, Packet
from tests import world
from tests.conftest import wait_until
from tests.packets import crowded
from tests.packets.without_redis import a_server, own_stock

pytestmark = pytest.mark.django_db(transaction=True)

CLAIMS = 5_000  # more than a rebuild loads by itself
LATER_S = 60.0


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with a_server(tmp_path_factory.mktemp("valkey")) as made:
        yield made


@pytest.fixture(autouse=True)
def server(
    own_server: ValkeyServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ValkeyServer]:
    monkeypatch.setattr(claimants, "wake", lambda lane_id=None: None)  # the test is the worker
    with own_stock(own_server, settings):
        yield own_server


def lose(packet: Packet) -> None:
    """Redis has forgotten this packet, and no other."""
    for pattern in (f"lane:{{{packet.id.hex}:*", claimants.LEASE_KEY):
        keys = list(stock_client().scan_iter(pattern, count=5_000))
        for start in range(0, len(keys), 5_000):
            stock_client().unlink(*keys[start : start + 5_000])


def loaded(packet: Packet) -> list[int]:
    return [int(world.redis_meta(packet, n).get(b"loaded", 0)) for n in range(packet.lane_count)]


def indexes(packet: Packet) -> list[int]:
    """How many portions Redis has given out of each lane; 0 where it doesn't know the lane."""
    return [int(world.redis_meta(packet, n).get(b"index", 0)) for n in range(packet.lane_count)]


def all_full(packet: Packet) -> bool:
    flags = [world.redis_meta(packet, n).get(b"claimants") for n in range(packet.lane_count)]
    return flags == [b"full"] * packet.lane_count


def assert_every_winner_is_marked(packet: Packet) -> None:
    records = 0
    for lane in packet.lanes.order_by("number"):
        pipeline = stock_client().pipeline(transaction=False)
        for bucket in range(lane.buckets):
            pipeline.hvals(stock.bucket_key(packet.id, lane.number, bucket))
        for texts in pipeline.execute():
            assert all(stock.record_parts(text)[1] > 0 for text in texts)
            records += len(texts)
    assert records == Claim.objects.filter(packet=packet).count()


def assert_serves(packet: Packet, newcomers: list[str], old: list[int]) -> None:
    """New people win, and whoever had won hears it again and takes no portion."""
    for name in newcomers:
        assert world.claim(packet, name).result is Result.WON
    before = indexes(packet)
    for number in old:
        again = world.claim(packet, crowded.old_winner(number))
        assert again.replayed and again.claim is not None
        assert again.claim.portion.amount_fen == crowded.PORTION_FEN
    assert indexes(packet) == before


@pytest.mark.parametrize(
    ("claims", "lane_count"),
    [
        (CLAIMS, 1),
        (2 * CLAIMS, 2),
        pytest.param(1_000_000, 1, marks=[pytest.mark.nightly, pytest.mark.timeout(900)]),
        pytest.param(1_000_000, 8, marks=[pytest.mark.nightly, pytest.mark.timeout(900)]),
    ],
)
def test_it_claims_at_once_and_a_killed_loader_is_succeeded_where_it_stopped(
    superuser_dsn: str, claims: int, lane_count: int
) -> None:
    packet = crowded.crowded_packet(superuser_dsn, claims, lane_count)
    lose(packet)
    started = time.monotonic()
    assert_serves(packet, ["first"], [])
    print(f"{claims} claims, {lane_count} lanes: claims again {time.monotonic() - started:.3f} s")
    assert_serves(packet, [f"new{i}" for i in range(40)], [1, 2, claims // 2, claims])
    assert not all_full(packet)

    loader = crowded.start_loader(chunk=200, rest_s=0.05)
    wait_until(lambda: sum(loaded(packet)) >= 1_000, LATER_S, "a thousand are loaded")
    loader.kill()
    loader.wait()
    stopped_at = loaded(packet)
    assert not all_full(packet)
    assert_serves(packet, ["meanwhile"], [3, 4])
    assert not claimants.load_due(client=stock_client())  # its lease lasts yet
    assert loaded(packet) == stopped_at

    stock_client().delete(claimants.LEASE_KEY)  # it has lapsed
    reads: list[int] = []
    rows = claimants._rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            claimants, "_rows", lambda lane, after: (reads.append(after), rows(lane, after))[1]
        )
        while claimants.load_due(client=stock_client(), sleep=lambda _: None):
            pass
    assert max(stopped_at) in reads
    assert all_full(packet)
    assert_serves(packet, ["at last"], [5, 6, claims - 1])
    assert_every_winner_is_marked(packet)


def test_a_loader_stops_where_the_lane_has_moved_on(superuser_dsn: str) -> None:
    """And the next one begins where it stopped: the records outlive the epoch."""
    packet = crowded.crowded_packet(superuser_dsn, CLAIMS)
    lane = packet.lanes.get()
    lose(packet)
    assert recovery.rebuild(stock_client(), lane_id=lane.id, seen_epoch=None)

    def somebody_rebuilds(_: float) -> bool:
        if Lane.objects.get().epoch == 2:
            assert recovery.rebuild(stock_client(), lane_id=lane.id, seen_epoch=2)
        return True

    assert not claimants.load(lane.id, client=stock_client(), after_chunk=somebody_rebuilds)
    assert not all_full(packet)
    assert loaded(packet) == [claimants.CHUNK]
    assert claimants.load(lane.id, client=stock_client())
    assert_every_winner_is_marked(packet)


def test_winners_that_redis_kept_are_not_loaded_again(
    superuser_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was away for a moment and forgot nothing: only who won meanwhile is new to it."""
    monkeypatch.setattr(claimants, "LOST_MOMENTS", 3)
    packet = crowded.crowded_packet(superuser_dsn, CLAIMS)
    lane_id = packet.lanes.get().id
    lose(packet)
    assert recovery.rebuild(stock_client(), lane_id=lane_id, seen_epoch=None)
    assert claimants.load(lane_id, client=stock_client())
    for i in range(10):
        assert world.claim(packet, f"before{i}").result is Result.WON

    with monkeypatch.context() as patch:
        patch.setattr(circuit.of_process(), "_away", True)
        assert world.claim(packet, "meanwhile").result is Result.WON
    Lane.objects.update(direct_until=clock.now())
    assert recovery.rebuild(stock_client(), lane_id=lane_id, seen_epoch=None)
    assert loaded(packet) == [CLAIMS + 10 - 3]
    assert claimants.load(lane_id, client=stock_client())
    assert_every_winner_is_marked(packet)


def test_the_sweep_finds_a_loader_that_died_between_its_transactions() -> None:
    packet = world.open_packet(1_000, 10)
    lane = packet.lanes.get()
    assert recovery.open_epoch(lane.id, above=0, cause=LaneEpoch.Cause.REBUILT, seen=lane)
    recovery.stranded_adopt_due()
    assert Lane.objects.get().state == "loading"  # by its lease it may still be at work

    Lane.objects.update(loader_until=clock.now())
    recovery.stranded_adopt_due()
    assert Lane.objects.get().state == "open"
    assert world.redis_meta(packet)[b"epoch"] == b"3"


def test_the_sweep_wakes_a_loader_for_what_another_left(
    superuser_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = crowded.crowded_packet(superuser_dsn, CLAIMS)
    lose(packet)
    woken: list[Any] = []
    monkeypatch.setattr(claimants, "wake", woken.append)
    recovery.stranded_adopt_due()  # rebuilds it
    recovery.stranded_adopt_due()
    lane_id = packet.lanes.get().id
    assert woken == [lane_id, lane_id]


# --- what the others feel -------------------------------------------------------------------------


class Others:
    """Somebody who claims another packet again and again, and how long each took."""

    def __init__(self) -> None:
        self.packet = world.open_packet(100_000_000, 1_000_000)
        self.took_s: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._claim)

    def _claim(self) -> None:
        from django.db import connections

        number = 0
        while not self._stop.is_set():
            number += 1
            started = time.perf_counter()
            assert world.claim(self.packet, f"other{number}").result is Result.WON
            self.took_s.append(time.perf_counter() - started)
        connections.close_all()

    def __enter__(self) -> Others:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def during(self, condition: Callable[[], Any], timeout_s: float) -> tuple[float, float]:
        """(median ms, 99th percentile ms) of what they claim until the condition holds."""
        first = len(self.took_s)
        wait_until(condition, timeout_s, "the condition")
        took = sorted(self.took_s[first:])
        return statistics.median(took) * 1000, took[int(len(took) * 0.99)] * 1000


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_others_hardly_feel_a_million_claimants(superuser_dsn: str) -> None:
    packet = crowded.crowded_packet(superuser_dsn, 1_000_000)
    with Others() as others:
        deadline = time.monotonic() + 10
        before = others.during(lambda: time.monotonic() > deadline, 20)
        lose(packet)
        started = time.monotonic()
        assert world.claim(packet, "first").result is Result.WON
        reopened_s = time.monotonic() - started
        loader = crowded.start_loader(claimants.CHUNK)
        started = time.monotonic()
        loading = others.during(lambda: loader.poll() is not None, 600)
    assert loader.returncode == 0 and all_full(packet)
    print(
        f"a lane of a million claims: claims again after {reopened_s:.3f} s; loaded in"
        f" {time.monotonic() - started:.0f} s; others p50/p99 {before[0]:.1f}/{before[1]:.1f} ms"
        f" before, {loading[0]:.1f}/{loading[1]:.1f} ms meanwhile"
    )
    assert reopened_s < 1.0
    assert loading[0] < 3 * before[0]
