"""Postgres is slow or holds a lane: nothing piles up, and nothing is reserved that can't be
committed in time (what somebody holds who has left, nobody else can win)."""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
import pytest

from packets.claiming import committer, edge, flow, sync, trouble
from packets.claiming.edge import EdgeDriver
from packets.claiming.effects import Commit, Outcome, Result, Unavailable
from packets.claiming.pipe import Pipe, address_of
from packets.models import Claim, Packet
from tests import world

pytestmark = pytest.mark.django_db(transaction=True)

CROWD = 600
PATIENCE_S = 60.0


def reserved(packet: Packet) -> int:
    return int(world.redis_meta(packet)[b"index"])


@contextmanager
def held(dsn: str, packet: Packet) -> Iterator[None]:
    """Somebody else's transaction has the packet's lane in its hands."""
    with psycopg.connect(dsn) as link:
        link.execute(
            "SELECT 1 FROM packets_lane WHERE packet_id = %s FOR NO KEY UPDATE", [packet.id]
        )
        yield
        link.rollback()


def test_at_the_web_door_a_lane_in_trouble_reserves_nothing(
    owner_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "FIRST_PAUSE_S", 60)
    monkeypatch.setattr(trouble, "MAX_PAUSE_S", 60)
    packet = world.open_packet(10_000, 100)
    driver = sync.SyncDriver()
    with held(owner_dsn, packet):
        with pytest.raises(Unavailable, match="locked"):
            driver.run(world.steps(packet, "alice"))
        with pytest.raises(Unavailable, match="trouble"):
            driver.run(world.steps(packet, "bob"))
    assert reserved(packet) == 1  # Alice's, who may ask again


def test_at_the_web_door_slow_commits_refuse_who_would_wait_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packet = world.open_packet(10_000, 100)
    started, done = threading.Event(), threading.Event()
    real = committer.Journal.commit

    def slow_commit(*arguments: object) -> object:
        started.set()
        assert done.wait(PATIENCE_S)
        return real(*arguments)  # type: ignore[arg-type]

    group = committer.GroupCommitter()
    monkeypatch.setattr(committer.Journal, "commit", slow_commit)
    told: list[Outcome] = []

    def ask(claim: flow.Flow) -> None:
        told.append(sync.SyncDriver(committer=group).run(claim))

    askers = [
        threading.Thread(target=ask, args=[world.steps(packet, name)]) for name in ("alice", "bob")
    ]
    late = world.steps(packet, "late")
    try:
        for asker in askers:  # the first one's commit is under way, the second one waits for it
            asker.start()
        assert started.wait(PATIENCE_S)
        until = time.monotonic() + PATIENCE_S
        while not group._waiting:
            assert time.monotonic() < until
            time.sleep(0.01)
        monkeypatch.setattr(committer, "LATE_AFTER_S", 0)
        with pytest.raises(Unavailable, match="late"):
            sync.SyncDriver(committer=group).run(late)
        assert reserved(packet) == 2
    finally:
        done.set()
        for asker in askers:
            asker.join(PATIENCE_S)
        group.close()
    assert [outcome.result for outcome in told] == [Result.WON] * 2


def test_at_the_edge_a_crowd_meets_a_held_lane(
    owner_dsn: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet, other = world.open_packet(1_000_000, 2_000), world.open_packet(10_000, 100)
    crowd = [world.steps(packet, f"user{number}") for number in range(CROWD)]
    late, neighbour = world.steps(packet, "late"), world.steps(other, "neighbour")
    batches: list[int] = []
    commit = edge.Journal.commit

    def counted(journal: edge.Journal, lane_id: int, rows: Sequence[Commit]) -> object:
        batches.append(lane_id)
        return commit(journal, lane_id, rows)

    monkeypatch.setattr(edge.Journal, "commit", counted)
    monkeypatch.setattr(trouble, "FIRST_PAUSE_S", 60)  # longer than a busy machine takes

    async def night() -> list[Outcome | BaseException]:
        driver = EdgeDriver(Pipe(address_of(redis_url)))
        try:
            answers = await asyncio.gather(*map(driver.run, crowd), return_exceptions=True)
            # One waited for a lock; a second may have left before it was known. Not each in turn.
            assert len(batches) <= 2
            before = reserved(packet)
            with pytest.raises(Unavailable):
                await driver.run(late)
            assert reserved(packet) == before
            assert (await driver.run(neighbour)).result is Result.WON
            assert not driver.commits._queues and not driver.commits._busy
            return answers
        finally:
            await driver.close()

    with held(owner_dsn, packet):
        answers = asyncio.run(night())

    said = collections.Counter(type(answer).__name__ for answer in answers)
    assert said == {"Unavailable": CROWD}
    assert not Claim.objects.filter(packet=packet).exists()


def test_at_the_edge_slow_commits_refuse_who_would_wait_too_long(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes its time: those who can be served in time are, the others ask again.

    The story decides when time is up, so that it needs none.
    """
    packet = world.open_packet(1_000_000, 2_000)
    crowd = [world.steps(packet, f"user{number}") for number in range(CROWD)]
    commit = edge.Journal.commit

    done = threading.Event()

    def slow_commit(*arguments: object) -> object:
        assert done.wait(PATIENCE_S)
        return commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(edge.Journal, "commit", slow_commit)
    monkeypatch.setattr(edge, "LATE_AFTER_S", PATIENCE_S)
    monkeypatch.setattr(edge, "MAX_WAIT_S", PATIENCE_S)

    async def night() -> list[Outcome | BaseException]:
        driver = EdgeDriver(Pipe(address_of(redis_url)))
        try:
            running = [asyncio.ensure_future(driver.run(flow)) for flow in crowd]
            while reserved(packet) < CROWD:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(edge, "LATE_AFTER_S", 0)
            with pytest.raises(Unavailable, match="late"):
                await driver.run(steps_of_late)
            assert reserved(packet) == CROWD
            monkeypatch.setattr(edge, "MAX_WAIT_S", 0)
            done.set()
            return await asyncio.gather(*running, return_exceptions=True)
        finally:
            done.set()
            await driver.close()

    steps_of_late = world.steps(packet, "late")
    answers = asyncio.run(asyncio.wait_for(night(), PATIENCE_S))

    won = [a for a in answers if isinstance(a, Outcome) and a.result is Result.WON]
    refused = [a for a in answers if isinstance(a, Unavailable)]
    assert won and refused and len(won) + len(refused) == CROWD
    assert Claim.objects.count() == len(won)
    monkeypatch.undo()
    # Whoever asks again gets what they had reserved.
    indexes = {world.claim(packet, f"user{number}").claim for number in range(CROWD)}
    assert len(indexes) == CROWD == Claim.objects.count() and reserved(packet) == CROWD
