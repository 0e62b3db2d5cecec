"""The end of a pool in many lanes: it ends at exactly its total, and nobody waits long for it."""

from __future__ import annotations

import pytest
from django.db.models import Max, Sum

from packets import proof, revealed, services
from packets.claiming.effects import Result
from packets.invariants import invariants_check
from packets.models import Claim, Packet
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
