"""The end of a pool in many lanes: it ends at exactly its total, and nobody waits long for it."""

from __future__ import annotations

import datetime as dt
import threading
import time
from itertools import pairwise

import psycopg
import pytest
from django.db.models import Max, Sum

from engine.lib import clock
from packets import proof, revealed, services
from packets.claiming.effects import Result
from packets.invariants import invariants_check
from packets.models import Claim, LaneEpoch, Packet
from tests import world
from tests.packets.crowd import Heard, crowd

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
    heard = crowd(packet, 5_000)
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
    heard = crowd(packet, MILLION + LATECOMERS, in_flight=256)
    took_s = time.monotonic() - began
    the_pool_ended_exactly(packet, heard)
    moves = LaneEpoch.objects.filter(cause=LaneEpoch.Cause.REBALANCED)
    print(
        f"\n{len(heard.wins):,} wins of {sum(heard.wins.values()):,} fen in {took_s:.0f} s"
        f" ({len(heard.wins) / took_s:,.0f}/s); sold out {heard.results[Result.SOLD_OUT]:,},"
        f" busy {heard.busy:,}, unavailable {heard.unavailable:,};"
        f" longest wait {heard.longest_wait_s:.2f} s;"
        f" {moves.values('move').distinct().count()} moves of {moves.count():,} lanes"
    )
    assert heard.results == {Result.WON: MILLION, Result.SOLD_OUT: LATECOMERS}
    assert not LaneEpoch.objects.filter(cause=LaneEpoch.Cause.REBUILT).exists()
    assert heard.longest_wait_s <= WAIT_LIMIT_S


LOCKED_S = 4.0


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_one_locked_lane_leaves_the_others_at_their_rate(owner_dsn: str) -> None:
    """Somebody's open transaction holds a lane for four seconds in the middle of the crowd."""
    packet = world.open_packet(10_000_000, 100_000, lane_count=64)
    locked = packet.lanes.get(number=7)
    began: list[dt.datetime] = []

    def hold() -> None:
        while Claim.objects.filter(packet=packet).count() < 20_000:
            time.sleep(0.1)
        with psycopg.connect(owner_dsn) as link:
            link.execute("SELECT FROM packets_lane WHERE id = %s FOR UPDATE", (locked.id,))
            began.append(clock.now())
            time.sleep(LOCKED_S)

    holder = threading.Thread(target=hold)
    holder.start()
    heard = crowd(packet, 80_000, in_flight=256)
    holder.join()

    others = Claim.objects.filter(packet=packet).exclude(lane=locked)
    spans = [began[0] + dt.timedelta(seconds=LOCKED_S * at) for at in (-1, 0, 1, 2)]
    before, during, after = (
        others.filter(committed_at__gt=since, committed_at__lte=until).count()
        for since, until in pairwise(spans)
    )
    mine = Claim.objects.filter(lane=locked, committed_at__range=spans[1:3]).count()
    print(
        f"\nthe 63 others: {before:,}, {during:,} while locked, {after:,} claims in 4 s each;"
        f" unavailable {heard.unavailable:,}, longest wait {heard.longest_wait_s:.2f} s"
    )
    assert mine == 0
    assert during >= 0.8 * (before + after) / 2
