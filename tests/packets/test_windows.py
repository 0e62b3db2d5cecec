"""Rounds open and close to the second on every process, also when they are moved."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction

from engine.lib import clock
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.redis import stock as stock_client
from engine.models import AuditEvent, ClientApp
from engine.run.paths import CHECKOUT
from packets import services, stock, windows
from packets.claiming import flow
from packets.claiming.effects import ClaimRequest, Effect, Result, Unavailable
from packets.claiming.registry import Registry, registry
from packets.models import Claim, Packet
from tests import world
from tests.campaign import stage
from tests.conftest import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = dt.timedelta(seconds=1)


def packet_in(seconds: float, length_s: float = 3600, **rules: Any) -> Packet:
    """A packet that opens so many seconds from now."""
    opens_at = clock.now() + seconds * SECOND
    return world.open_packet(opens_at=opens_at, closes_at=opens_at + length_s * SECOND, **rules)


def packet_about_to_open(**rules: Any) -> Packet:
    """A packet that opens in a second; its making, which takes its time, is over."""
    packet = packet_in(60, **rules)
    Packet.objects.filter(pk=packet.pk).update(opens_at=clock.now() + SECOND)
    stock.push_flags(stock_client(), packet.pk)
    world.forget_views()
    packet.refresh_from_db()
    return packet


def move(packet: Packet, opens_at: dt.datetime, closes_at: dt.datetime | None = None) -> Packet:
    return services.packet_move(
        packet_id=packet.pk,
        opens_at=opens_at,
        closes_at=closes_at or opens_at + (packet.closes_at - packet.opens_at),
        actor="ann",
        reason="the gala is late",
    )


def wait_for(moment: dt.datetime) -> None:
    wait_until(lambda: _postgres_now() >= moment, 20, f"{moment}")


def _postgres_now() -> dt.datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: dt.datetime = cursor.fetchone()[0]
        return found


# --- before the opening ---------------------------------------------------------------------------


def test_a_crowd_that_waits_is_answered_from_memory() -> None:
    """No effect at all: neither Redis nor Postgres is asked. And nobody is sent away for long."""
    for seconds, retry_after_s in ((20, range(10, 20)), (4_000, range(30, 31))):
        packet = packet_in(seconds, needs_ticket=seconds == 20, password="芝麻")
        view = registry.view(packet.pk)
        assert view is not None and view.state == "scheduled"
        steps = flow.claim(view, world.person("alice"), ClaimRequest(), b"")
        with pytest.raises(StopIteration) as answered:
            effect: Effect = next(steps)
            pytest.fail(f"asked for {effect}")
        outcome = answered.value.value
        assert outcome.result is Result.NOT_STARTED
        assert outcome.retry_after_s in retry_after_s


def test_what_is_remembered_ends_with_the_opening() -> None:
    packet = packet_about_to_open()
    patient = Registry(lifetime_s=60)
    assert patient.view(packet.pk) is not None
    assert patient.peek(packet.pk)[0]

    wait_for(packet.opens_at)

    assert patient.peek(packet.pk) == (False, None)
    view = patient.view(packet.pk)
    assert view is not None and view.state == "open" and view.opens_in_s is None


def test_a_packet_that_is_paused_or_has_claims_is_never_waited_for_in_memory() -> None:
    """Only a clock that was set back shows a packet with claims before its opening."""
    paused, odd = packet_in(60), world.open_packet()
    services.packet_pause(packet_id=paused.pk, actor="x")
    won = world.claim(odd, "alice")
    Packet.objects.filter(pk=odd.pk).update(opens_at=clock.now() + 60 * SECOND)
    world.forget_views()

    assert world.claim(paused, "alice").result is not Result.WON
    again = world.claim(odd, "alice")
    assert (again.result, again.claim) == (Result.WON, won.claim)
    assert world.claim(odd, "bob").result is Result.NOT_STARTED


def test_postgres_says_when_it_opens_whatever_redis_believes() -> None:
    """Redis's clock is ahead, or behind; or word of a move never came to it."""
    packets = [packet_about_to_open(), packet_about_to_open()]
    for packet, opens_ms in zip(packets, (0, 2**42), strict=True):
        stock.set_flags(stock_client(), packet.pk, 0, None, {"opens_ms": opens_ms})
    told = [world.claim(packet, "alice").result for packet in packets]
    assert told == [Result.NOT_STARTED] * 2

    wait_for(packets[1].opens_at)

    for packet in packets:
        told = [world.claim(packet, name).result for name in ("alice", "bob")]
        assert told == [Result.WON] * 2
        first = Claim.objects.filter(packet=packet).earliest("committed_at")
        assert first.committed_at >= packet.opens_at


def test_a_redis_whose_clock_is_behind_opens_nothing_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """For Redis every opening still lies ahead by as much as its clock is behind."""
    flags = stock.lane_flags

    def behind(*args: Any) -> dict[str, Any]:
        return {**flags(*args), "opens_ms": clock.now_ms() + 120_000}

    monkeypatch.setattr(stock, "lane_flags", behind)
    packet = packet_in(-1)
    assert [world.claim(packet, f"user{i}").result for i in range(5)] == [Result.WON] * 5


def test_a_later_end_that_redis_never_heard_of() -> None:
    packet = packet_in(-60)
    stock.set_flags(stock_client(), packet.pk, 0, None, {"closes_ms": 1})
    assert world.claim(packet, "alice").result is Result.WON


# --- moving ---------------------------------------------------------------------------------------


def test_a_round_that_has_not_started_moves_either_way() -> None:
    packet = packet_in(600, 60)
    for minutes in (20, 5):
        moved = move(packet, packet.opens_at + minutes * 60 * SECOND)
        row = Packet.objects.get()
        assert (row.opens_at, row.closes_at) == (moved.opens_at, moved.closes_at)
        flags = world.redis_meta(packet)
        assert int(flags[b"opens_ms"]) == clock.to_ms(moved.opens_at)
        assert int(flags[b"closes_ms"]) == clock.to_ms(moved.closes_at)
    event = AuditEvent.objects.order_by("id").last()
    assert event is not None
    assert (event.action, event.actor, event.reason) == ("packet.move", "ann", "the gala is late")
    assert set(event.before or {}) == set(event.after or {}) == {"opens_at", "closes_at"}


def test_a_round_that_runs_keeps_its_start_and_may_end_later() -> None:
    packet = packet_in(-10, 60)
    world.claim(packet, "alice")
    later = packet.closes_at + 60 * SECOND

    with pytest.raises(ServiceError) as refused:
        move(packet, packet.opens_at + 30 * SECOND, later)
    assert (refused.value.field, refused.value.code) == ("opens_at", "started")
    move(packet, packet.opens_at, later)

    assert Packet.objects.get().closes_at == later


@pytest.mark.parametrize(
    ("starts_in_s", "opens_after_s", "closes_after_s", "field", "code"),
    [
        (-600, 0, 700, "closes_at", "over"),
        (600, -700, 0, "opens_at", "in_the_past"),
        (600, 60, 0, "closes_at", "shorter"),
        (-10, 0, -5, "closes_at", "shorter"),
    ],
)
def test_what_is_refused_changes_nothing(
    starts_in_s: int, opens_after_s: int, closes_after_s: int, field: str, code: str
) -> None:
    packet = packet_in(starts_in_s if starts_in_s > 0 else 60, 60)
    if starts_in_s < 0:
        began = clock.now() + starts_in_s * SECOND
        Packet.objects.update(opens_at=began, closes_at=began + 60 * SECOND)
    before = Packet.objects.values().get(), AuditEvent.objects.count()
    opens_at, closes_at = before[0]["opens_at"], before[0]["closes_at"]

    with pytest.raises(ServiceError) as refused:
        move(packet, opens_at + opens_after_s * SECOND, closes_at + closes_after_s * SECOND)

    assert (refused.value.field, refused.value.code) == (field, code)
    assert (Packet.objects.values().get(), AuditEvent.objects.count()) == before


def test_what_is_closed_does_not_move() -> None:
    packet = packet_in(600)
    services.packet_close(packet_id=packet.pk, actor="x")
    with pytest.raises(TransitionRefused):
        move(packet, packet.opens_at + 60 * SECOND)


def _claim_while_the_move_is_being_written(packet: Packet) -> list[Result]:
    """The move has looked at the clock; the old time comes; somebody claims; the move is done."""
    told: list[Result] = []

    def ask() -> None:
        try:
            told.append(world.claim(packet, "alice").result)
        except Unavailable:
            told.append(Result.BUSY)  # 503: the lane is held
        finally:
            connections.close_all()

    with transaction.atomic():
        move(packet, packet.opens_at + 600 * SECOND)
        wait_for(packet.opens_at)
        world.forget_views()
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
    return told


def test_nobody_claims_by_the_old_time_while_the_new_one_is_written() -> None:
    packet = packet_about_to_open()

    assert _claim_while_the_move_is_being_written(packet) == [Result.BUSY]

    world.forget_views()
    assert world.claim(packet, "alice").result is Result.NOT_STARTED
    assert Claim.objects.count() == 0


def test_a_later_end_waits_for_no_lane(owner_dsn: str) -> None:
    """While the round runs its lanes are a crowd's."""
    packet = packet_in(-10, 60)
    with psycopg.connect(owner_dsn) as crowd:
        crowd.execute("SELECT 1 FROM packets_lane FOR UPDATE")
        move(packet, packet.opens_at, packet.closes_at + 60 * SECOND)
    assert Packet.objects.get().closes_at == packet.closes_at + 60 * SECOND


@pytest.mark.control
def test_without_the_lanes_lock_somebody_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_hold_lanes", lambda _: None)
    packet = packet_about_to_open()

    assert _claim_while_the_move_is_being_written(packet) == [Result.WON]

    assert Claim.objects.get().committed_at < Packet.objects.get().opens_at


# --- every process --------------------------------------------------------------------------------


class Watch:
    """A process at a door, and what it was told."""

    def __init__(self, door: str, packet: Packet, app: ClientApp, keep_s: float) -> None:
        self.answers: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.packets.opening_watch", door, packet.public_id,
             str(app.pk), str(keep_s)],
            cwd=CHECKOUT,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "engine.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            self.answers.append((answer["asked"], answer["result"]))

    def asked(self, *results: str) -> list[float]:
        return [at for at, result in list(self.answers) if result in results]

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.reader.join(10)


@pytest.fixture
def watched() -> Iterator[tuple[Packet, dict[str, Watch]]]:
    """A packet of a minute from now, and three processes: two doors, and one that forgets late."""
    app = stage.make_app()
    packet = packet_in(60, 1.2, total_fen=10_000, count=10_000, client_apps=[app.pk])
    watches = {
        "web": Watch("web", packet, app, 1.0),
        "edge": Watch("edge", packet, app, 1.0),
        "late": Watch("web", packet, app, 30.0),
    }
    yield packet, watches
    for watch in watches.values():
        watch.end()


def test_processes_open_and_close_a_moved_round_to_the_second(
    watched: tuple[Packet, dict[str, Watch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved to an earlier time, then to a later one; and word of it never comes to Redis.

    The third process remembers for longer than a second: it is the control, and must be late.
    """
    packet, watches = watched
    monkeypatch.setattr(windows, "flags_push", lambda _: None)
    wait_until(lambda: all(w.asked("not_started") for w in watches.values()), 30, "the start")

    first = move(packet, clock.now() + 2.5 * SECOND)
    wait_for(first.opens_at - 1.3 * SECOND)  # they have heard of it
    last = move(packet, first.opens_at + 0.5 * SECOND)
    opens, closes = last.opens_at.timestamp(), last.closes_at.timestamp()
    doors = [watches["web"], watches["edge"]]
    wait_until(lambda: all(w.asked("won") for w in doors), 20, "the opening")
    wait_until(lambda: all(w.asked("busy", "ended") for w in doors), 20, "the close")

    times = list(Claim.objects.values_list("committed_at", flat=True))
    assert min(times) >= last.opens_at  # never early
    for watch in doors:
        assert max(watch.asked("not_started")) < opens + 1  # nor late by more than a second
        assert max(watch.asked("won")) < closes
    assert max(watches["late"].asked("not_started")) > opens + 1
