from __future__ import annotations

import pytest

from packets import settlement
from packets.models import Account, ClaimState, Lane, LaneCursor
from tests.factories import make_claims, make_packet

@pytest.mark.django_db(transaction=True)
def test_smoke() -> None:
    packet = make_packet(count=10)
    lane = packet.lanes.get()
    make_claims(lane, 7)
    done = settlement.settle_lane(lane.id)
    assert (done.settled, done.settled_fen, done.left) == (7, 700, 0)
