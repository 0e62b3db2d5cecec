"""A pool of a hundred million portions costs what its lanes cost, until people come."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from engine.lib.redis import stock as stock_client
from packets import flags, recovery, services, stock
from packets.claiming.effects import Result
from packets.models import MAX_LANES, Lane, Packet
from tests import world

pytestmark = pytest.mark.django_db(transaction=True)

PORTIONS = 100_000_000


@pytest.fixture
def pool() -> Packet:
    return world.open_packet(100 * PORTIONS, PORTIONS, max_fen=5_000)


def test_it_opens_claims_and_closes_like_any_other(pool: Packet) -> None:
    assert pool.lane_count == MAX_LANES  # chosen from the number of portions
    assert set(Lane.objects.values_list("state", "epoch")) == {("open", 1)}
    keys = stock_client().dbsize()
    assert keys <= MAX_LANES + 1  # a head for each lane; claimants take room when they come
    head = stock_client().memory_usage(stock.meta_key(pool.id, 0))
    assert head is not None and head < 1_024
    for number in range(3):
        assert world.claim(pool, f"user{number}").result is Result.WON
    # Looking after a thousand quiet lanes is a look at all of them together.
    with CaptureQueriesContext(connection) as queries:
        assert recovery.stranded_adopt_due() == 0
    assert len(queries) < 10

    services.packet_close(packet_id=pool.id, actor="test")
    forever = [key for key in stock_client().keys("lane:*") if stock_client().ttl(key) == -1]
    assert forever  # a million hashes aren't gone through while somebody waits
    assert world.claim(pool, "user1").result is Result.WON
    assert world.claim(pool, "late").result is Result.ENDED


def test_what_a_close_left_to_the_sweep_gets_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "EXPIRED_AT_ONCE", 1)
    packet = world.open_packet(2_000, 20, lane_count=2)
    for number in range(5):
        world.claim(packet, f"user{number}")
    assert flags.stock_expire_due() == 0  # it is open
    services.packet_close(packet_id=packet.id, actor="test")
    keys = stock_client().keys("lane:*")
    assert {stock_client().ttl(key) for key in keys} == {-1}
    assert flags.stock_expire_due() == 1
    assert all(0 < stock_client().ttl(key) <= stock.CLOSED_KEPT_S for key in keys)
    assert flags.stock_expire_due() == 0
