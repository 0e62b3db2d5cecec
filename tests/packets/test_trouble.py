"""One thing in trouble keeps no other from going on; what was mended isn't mended for ever."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from engine.lib import clock
from engine.lib.redis import stock as stock_client
from packets import ledger, recovery, services, settlement, stock
from packets.claiming import circuit, journal, registry, sync, trouble
from packets.claiming.effects import Reserve, Result, Unavailable
from packets.models import (
    Account,
    Claim,
    ClaimState,
    Lane,
    LaneEpoch,
    Packet,
    Participant,
    Transfer,
)
from tests import world
from tests.factories import make_claims
from tests.packets.settling import locked, one_lane
from tests.packets.test_claim import end
from tests.packets.test_critical import claim_and_die_before_commit

pytestmark = pytest.mark.django_db(transaction=True)


def lock_of(packet: Packet) -> str:
    return f"SELECT 1 FROM packets_lane WHERE packet_id = '{packet.id}' FOR UPDATE"


class TestSweeps:
    def test_a_locked_lane_keeps_no_other_from_being_looked_after(self, owner_dsn: str) -> None:
        held, other = world.open_packet(), world.open_packet()
        world.wipe_redis()
        with locked(owner_dsn, lock_of(held)):
            recovery.stranded_adopt_due()
        assert world.redis_meta(other) and not world.redis_meta(held)

    def test_a_packet_that_cannot_close_keeps_no_other_open(self, owner_dsn: str) -> None:
        held, short, other = (world.open_packet() for _ in range(3))
        for packet in (held, short, other):
            end(packet, dt.timedelta(minutes=1))
        escrow = Packet.objects.get(id=short.id).escrow_id
        assert escrow is not None
        outside = ledger.external_account().id
        ledger.post([ledger.Entry("lost", Transfer.Kind.REFUND, escrow, outside, 1)])
        with locked(owner_dsn, lock_of(held)):
            assert services.packets_expire_due() == 1
        states = dict(Packet.objects.values_list("id", "state"))
        assert (states[held.id], states[short.id], states[other.id]) == ("open", "open", "closed")
        assert services.packets_expire_due() == 1
        assert Packet.objects.get(id=held.id).state == "closed"

    def test_claims_refused_for_good_keep_no_mended_one_waiting(self, superuser_dsn: str) -> None:
        _, lane = one_lane(3)
        bad, mended, _ = make_claims(lane, 3)
        elsewhere = ledger.account_get_or_create(kind=Account.Kind.CLEARING, owner="x")
        outside = ledger.external_account().id
        reference = f"settle:{bad.id.hex}"
        ledger.post([ledger.Entry(reference, Transfer.Kind.FUND, outside, elsewhere.id, 5)])
        ClaimState.objects.bulk_create(
            ClaimState(claim=claim, state="parked", reason="x") for claim in (bad, mended)
        )
        with psycopg.connect(superuser_dsn) as link:
            link.execute("UPDATE packets_lanecursor SET settled_count = 2")
        for _ in range(40):
            settlement.retry_parked(limit=1)
        assert ClaimState.objects.get(claim=mended).state == "settled"
        assert ClaimState.objects.get(claim=bad).state == "parked"

    def test_a_gap_without_owners_is_searched_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ann's record is lost and her repeat burns an index: nobody will ever commit it."""
        monkeypatch.setattr(recovery, "ADOPT_AFTER_S", 0)
        packet = world.open_packet(10_000, 100)
        world.claim(packet, "ann")
        for key in stock_client().scan_iter("*:b:*"):
            stock_client().delete(key)
        assert world.claim(packet, "ann").replayed
        scans = []
        search = recovery._reservations
        monkeypatch.setattr(recovery, "_reservations", lambda *a: scans.append(1) or search(*a))
        for _ in range(12):
            recovery.stranded_adopt_due()
        assert len(scans) == 1

    def test_rubbish_in_redis_is_read_as_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recovery, "ADOPT_AFTER_S", 0)
        packet = world.open_packet()
        first = world.claim(packet, "alice")
        claim_and_die_before_commit(packet, "ben")
        who = world.person("alice").participant
        for key in stock_client().scan_iter("*:b:*"):
            if stock_client().hexists(key, who):  # type: ignore[arg-type]
                stock_client().hset(key, who, "rubbish")  # type: ignore[arg-type]
        for _ in range(3):
            recovery.stranded_adopt_due()
        assert Claim.objects.count() == 2
        assert world.claim(packet, "alice").claim == first.claim

    def test_an_impossible_epoch_in_redis_is_thrown_away(self) -> None:
        packet = world.open_packet()
        stock_client().hset(stock.meta_key(packet.id, 0), "epoch", 2**62)
        assert world.claim(packet, "alice").result is Result.WON
        assert Lane.objects.get().epoch == 2

    def test_rubbish_where_an_epoch_should_be_is_thrown_away(self) -> None:
        packet, other = world.open_packet(), world.open_packet()
        first = world.claim(packet, "alice")
        stock_client().hset(stock.meta_key(packet.id, 0), "epoch", "rubbish")
        stock_client().delete(stock.meta_key(other.id, 0))
        recovery.stranded_adopt_due()  # neither lane keeps the sweep from the other
        assert world.claim(packet, "alice").claim == first.claim
        assert world.claim(packet, "bob").result is Result.WON
        assert set(Lane.objects.values_list("epoch", flat=True)) == {2}


def test_who_was_adopted_is_known_when_they_come_back() -> None:
    packet = world.open_packet(1_000, 1)
    claim_and_die_before_commit(packet, "ann")
    assert recovery.adopt(stock_client(), packet.lanes.get(), below_index=10) == 1
    assert not Participant.objects.exists()
    assert world.claim(packet, "ann").result is Result.WON
    assert Participant.objects.get().subject == "ann"


def test_redis_forgets_a_closed_packet_after_a_day() -> None:
    packet = world.open_packet()
    for name in ("alice", "bob"):
        world.claim(packet, name)
    services.packet_close(packet_id=packet.id, actor="test")
    keys = list(stock_client().scan_iter("lane:*"))
    assert keys and all(0 < stock_client().ttl(key) <= 86_400 for key in keys)
    world.wipe_redis()
    world.forget_views()
    assert world.claim(packet, "alice").result is Result.WON
    assert not list(stock_client().scan_iter("lane:*"))


class TestTheEnd:
    def test_nobody_hears_ended_while_their_commit_is_under_way(self, app_dsn: str) -> None:
        packet = world.open_packet()
        view = registry.read(packet.id)
        assert view is not None
        slot = sync.flow.slot_of(view, world.person("cem").participant)
        portion = sync.SyncDriver().perform(Reserve(slot, False)).portion
        Packet.objects.filter(id=packet.id).update(
            closes_at=clock.now() - dt.timedelta(seconds=1.5)
        )
        stock.push_flags(stock_client(), packet.id)
        with psycopg.connect(app_dsn) as link:
            row = link.execute(
                journal._COMMIT,
                (slot.lane_id, [slot.participant], [0], [portion.epoch], [portion.index],
                 [portion.amount_fen], [0]),
            ).fetchone()  # fmt: skip
            assert row is not None and row[0] == "won"
            time.sleep(0.8)
            world.forget_views()
            heard: Any
            try:
                heard = world.claim(packet, "cem").result
            except Unavailable:
                heard = "503"
            link.commit()
        assert heard in ("503", Result.BUSY)
        time.sleep(0.3)  # the pause of a lane that was found locked
        assert world.claim(packet, "cem").result is Result.WON

    def test_the_end_is_judged_by_postgres_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        packet = world.open_packet()
        Packet.objects.update(closes_at=clock.now() + dt.timedelta(minutes=4))
        right = clock.now
        monkeypatch.setattr(clock, "now", lambda: right() + dt.timedelta(minutes=5))
        assert services.packets_expire_due() == 0
        monkeypatch.setattr(clock, "now", right)
        assert world.claim(packet, "alice").result is Result.WON


def test_a_loader_with_a_wrong_clock_has_no_longer_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    lane = world.open_packet().lanes.get()
    right = clock.now
    monkeypatch.setattr(clock, "now", lambda: right() + dt.timedelta(minutes=5))
    recovery.open_epoch(lane.id, above=0, cause=LaneEpoch.Cause.REBUILT, seen=lane)
    lease = Lane.objects.get().loader_until
    assert lease is not None and lease < right() + dt.timedelta(seconds=6)


def test_flags_that_stay_wrong_cost_one_push_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis goes on believing that the packet opens in two minutes, whatever it is told."""
    packet = world.open_packet(100_000, 64, lane_count=16)
    for lane in range(16):
        stock.set_flags(
            stock_client(), packet.id, lane, None, {"opens_ms": clock.now_ms() + 120_000}
        )
    pushed: list[uuid.UUID] = []
    monkeypatch.setattr(stock, "push_flags", lambda _client, packet_id: pushed.append(packet_id))

    answers = [world.claim(packet, f"user{i}").result for i in range(5)]

    assert answers == [Result.BUSY] * 5
    assert 1 <= len(pushed) <= 2


def test_locked_lanes_leave_a_connection_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lanes time out on both connections: refused for a moment, then tried one at a time."""
    now_s = [100.0]
    monkeypatch.setattr(trouble, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    lanes = trouble.Trouble()
    for lane in (1, 2):
        assert lanes.may_start(lane, 2)
    for lane in (1, 2):
        lanes.learn(lane, [Unavailable("the lane is locked")])
        with pytest.raises(Unavailable):
            lanes.check(lane)
    lanes.check(3)

    now_s[0] += trouble.FIRST_PAUSE_S
    lanes.check(1)
    assert lanes.may_start(1, 2)
    assert not lanes.may_start(2, 1)  # that connection is for those that are well
    assert lanes.may_start(3, 1)

    lanes.learn(1, ["won"])
    assert lanes.may_start(2, 2) and lanes.may_start(1, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "x" * 81),
        ("group", "g" * 129),
        ("group", "a\0b"),
        ("password", "\ud800"),
        ("password", "   "),
        ("min_account_age_days", -1),
        ("lane_count", 0),
        ("lane_count", 11),
    ],
)
def test_odd_inputs_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(services.ServiceError) as refusal:
        world.draft_packet(1_000, 10, **{field: value})
    assert refusal.value.field == field
    assert not Packet.objects.exists()


def test_a_packet_whose_window_is_over_is_not_opened() -> None:
    packet = world.draft_packet(
        opens_at=clock.now() - dt.timedelta(hours=2), closes_at=clock.now() - dt.timedelta(hours=1)
    )
    with pytest.raises(services.ServiceError, match="window is over"):
        services.packet_open(packet_id=packet.id, actor="test")
    assert Packet.objects.get().state == "draft"
    assert Account.objects.get(id=packet.funder_id).balance_fen == 10_000


def test_a_probe_that_fails_in_an_unknown_way_goes_on() -> None:
    """A process whose probe is dead would open epochs against all others for ever."""
    asked: list[int] = []

    class Odd:
        def ask(self) -> None:
            asked.append(1)
            if len(asked) == 1:
                raise KeyError("a slot without a node")

        def close(self) -> None: ...

    known = circuit.Circuit(new_probe=Odd)  # type: ignore[arg-type]
    known.trip("gone")
    until = time.monotonic() + 5
    while known.is_open() and time.monotonic() < until:
        time.sleep(0.01)
    assert not known.is_open() and len(asked) == 2
