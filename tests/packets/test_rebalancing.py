"""Portions move to where people ask, and nothing is won or lost by it."""

from __future__ import annotations

import pytest
from django.db.models import Sum

from engine.lib.redis import stock as stock_client
from packets import proof, rebalancing, revealed, services
from packets.claiming.effects import Result
from packets.invariants import invariants_check
from packets.models import Claim, LaneEpoch, Packet
from tests import world

pytestmark = pytest.mark.django_db(transaction=True)

PRIZES = {"strategy": "tiers", "tiers": [(500, 3), (50, 20)]}


def test_smoke() -> None:
    packet = world.open_packet(20_000, 60, lane_count=4, min_fen=10, **PRIZES)
    n = 0
    busy = 0
    while True:
        n += 1
        assert n < 3000
        out = world.claim(packet, f"u{n}")
        if out.result == Result.BUSY:
            busy += 1
            rebalancing.note(stock_client(), packet.id, {i: 1 for i in range(4)})
            rebalancing.rebalance(stock_client(), packet_id=packet.id)
        elif out.result == Result.SOLD_OUT:
            break
    print(n, busy, LaneEpoch.objects.count(), LaneEpoch.objects.filter(cause="rebalanced").count())
    assert Claim.objects.aggregate(s=Sum("amount_fen"))["s"] == 20_000
    assert invariants_check().holds
    services.packet_close(packet_id=packet.id, actor="test")
    assert proof.recompute(revealed.record(Packet.objects.get())) == []
