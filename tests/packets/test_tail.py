"""The end of a pool in many lanes: it ends at exactly its total, and nobody waits long for it."""

from __future__ import annotations

import datetime as dt
import threading
import time

import psycopg
import pytest
from django.db.models import Max, Sum

from engine.lib import clock
from packets import proof, revealed, services
from packets.claiming.effects import Result
from packets.invariants import invariants_check
from packets.models import Claim, LaneEpoch, Packet
from tests import world
from tests.packets.crowd import Heard, Stoppable, crowd

pytestmark = pytest.mark.django_db(transaction=True)


def the_pool_ended_exactly(packet: Packet, heard: Heard) -> None:
    rows = dict(Claim.objects.filter(packet=packet).values_list("id", "amount_fen"))
    assert heard.wins == rows  # the crowd's own log, row by row
    assert len(rows) == packet.count and sum(rows.values()) == packet.total_fen
    totals = packet.lanes.aggregate(fen=Sum("total_fen"), count=Sum("count"))
    assert totals == {"fen": packet.total_fen, "count": packet.count}
    last = Claim.objects.filter(packet=packet).aggregate(at=Max("committed_at"))["at"]
    assert heard.first_sold_out is not None and last <= heard.first_sold_out


def test_a_pool_of_64_lanes_ends_exactly_and_at_once() -> None:
    packet = world.open_packet(1_000_000, 4_900, lane_count=64, max_fen=5_000)
    heard = crowd(packet, Stoppable(5_000))
    the_pool_ended_exactly(packet, heard)
    # On a machine that does nothing else it is 2 to 4 s; here it says that nobody hangs.
    assert heard.longest_wait_s < 20
    assert heard.results == {Result.WON: 4_900, Result.SOLD_OUT: 100}
    assert invariants_check().holds
    services.packet_close(packet_id=packet.id, actor="test")
    assert proof.recompute(revealed.record(Packet.objects.get())) == []


MILLION = 1_000_000
LATECOMERS = 2_000
WAIT_LIMIT_S = 5.0  # the reader's limit for a person at the tail, on a machine of its own


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_a_million_people_end_a_pool_of_64_lanes() -> None:
    packet = world.open_packet(100 * MILLION, MILLION, lane_count=64, max_fen=5_000)
    began = time.monotonic()
    heard = crowd(packet, Stoppable(MILLION + LATECOMERS), in_flight=256)
    took_s = time.monotonic() - began
    the_pool_ended_exactly(packet, heard)
    moves = LaneEpoch.objects.filter(cause=LaneEpoch.Cause.REBALANCED)
    print(
        f"\n{len(heard.wins):,} wins of {sum(heard.wins.values()):,} fen in {took_s:.0f} s"
        f" ({len(heard.wins) / took_s:,.0f}/s); sold out {heard.results[Result.SOLD_OUT]:,},"
        f" busy {heard.busy:,}, unavailable {heard.unavailable:,};"
        f" longest wait {heard.longest_wait_s:.2f} s;"
        f" {moves.values('move').distinct().count()} moves of {moves.count():,} lanes,"
        f" {LaneEpoch.objects.filter(cause=LaneEpoch.Cause.REBUILT).count()} lanes rebuilt"
    )
    assert heard.results == {Result.WON: MILLION, Result.SOLD_OUT: LATECOMERS}
    assert heard.longest_wait_s <= WAIT_LIMIT_S


LOCKED_S = 4.0
TIMES = 4  # so that whatever else the machine does falls on both sides


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_one_locked_lane_leaves_the_others_at_their_rate(owner_dsn: str) -> None:
    """Somebody's open transaction holds a lane for four seconds, again and again."""
    packet = world.open_packet(50_000_000, 500_000, lane_count=64)
    locked = packet.lanes.get(number=7)
    spans: list[tuple[dt.datetime, dt.datetime]] = []
    people = Stoppable(400_000)

    def hold() -> None:
        try:
            time.sleep(LOCKED_S)
            for _ in range(TIMES):
                with psycopg.connect(owner_dsn) as link:
                    link.execute("SELECT FROM packets_lane WHERE id = %s FOR UPDATE", (locked.id,))
                    since = clock.now()
                    time.sleep(LOCKED_S)
                    spans.append((since, clock.now()))
                time.sleep(LOCKED_S)
        finally:
            people.stop()

    holder = threading.Thread(target=hold)
    holder.start()
    heard = crowd(packet, people, in_flight=256)
    holder.join()
    assert people.left, "the crowd ended before the locks did"

    others = Claim.objects.filter(packet=packet).exclude(lane=locked)
    pause = dt.timedelta(seconds=LOCKED_S)
    during = sum(others.filter(committed_at__range=span).count() for span in spans)
    beside = sum(
        others.filter(committed_at__range=(since - pause, since)).count()
        + others.filter(committed_at__range=(until, until + pause)).count()
        for since, until in spans
    )
    ratio = during / (beside / 2)
    print(
        f"\nthe 63 others: {during:,} claims while locked, {beside / 2:,.0f} in as much time"
        f" beside it: {ratio:.2f}; unavailable {heard.unavailable:,}"
    )
    mine = Claim.objects.filter(lane=locked)
    assert not any(mine.filter(committed_at__range=span).exists() for span in spans)
    assert ratio >= 0.8
