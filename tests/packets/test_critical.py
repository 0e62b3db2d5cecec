"""The three ways in which an answer about a win could be a lie, each with its fix switched off.

The control of each test switches exactly that fix off and must then see the lie.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models import Sum

from engine.lib import lua
from engine.lib.redis import stock as stock_client
from packets import proof, recovery, services, stock
from packets.claiming import flow, sync
from packets.claiming.effects import (
    AskPostgres,
    ClaimRequest,
    Commit,
    Outcome,
    Result,
    Truth,
)
from packets.claiming.registry import registry
from packets.models import Claim, Packet
from tests import world
from tests.guards import without_guard

pytestmark = pytest.mark.django_db(transaction=True)


class Dies(Exception):
    """The process dies here (kill −9, from the claim's point of view)."""


def claim_and_die_before_commit(packet: Packet, name: str) -> None:
    """Reserve as a process does that is killed before its commit."""

    class Dying(sync.SyncDriver):
        def _perform(self, effect: Any) -> Any:
            if isinstance(effect, Commit):
                raise Dies
            return super()._perform(effect)

    view = registry.view(packet.id)
    assert view is not None
    with pytest.raises(Dies):
        Dying().run(flow.claim(view, world.person(name), ClaimRequest(), b""))


def answers_agree_with_postgres(told: dict[str, Outcome], packet: Packet) -> bool:
    """Every win that was told is a row with that id and amount."""
    rows = dict(Claim.objects.filter(packet=packet).values_list("id", "amount_fen"))
    return all(
        outcome.claim is not None and rows.get(outcome.claim.id) == outcome.claim.portion.amount_fen
        for outcome in told.values()
        if outcome.result is Result.WON
    )


# --- 1: a repeat is never answered from a reservation that nobody committed -----------------------


@pytest.fixture
def repeats_answered_from_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fix of 1 off: any record of Redis passes for a committed one."""
    script = lua.load("packets", "claim")
    text = script.text.replace("if ms and ms ~= '0' then", "if true then")
    assert text != script.text
    careless = dataclasses.replace(script, text=text, sha="0" * 40)
    load = lua.load
    monkeypatch.setattr(
        lua, "load", lambda app, name: careless if name == "claim" else load(app, name)
    )


def story_of_a_repeat(packet: Packet) -> dict[str, Outcome]:
    """Alice's process dies before the commit; she asks again; then Redis is lost and all ask."""
    claim_and_die_before_commit(packet, "alice")
    told = {"alice": world.claim(packet, "alice")}
    world.wipe_redis()
    for name in ("bob", "carol"):
        told[name] = world.claim(packet, name)
    return told


def test_a_repeat_goes_through_the_commit() -> None:
    packet = world.open_packet(1_000, 3)
    told = story_of_a_repeat(packet)
    assert told["alice"].result is Result.WON
    assert answers_agree_with_postgres(told, packet)
    assert world.claim(packet, "alice").claim == told["alice"].claim


@pytest.mark.usefixtures("repeats_answered_from_redis")
def test_control_a_repeat_from_redis_tells_of_a_win_that_is_not_there() -> None:
    packet = world.open_packet(1_000, 3)
    told = story_of_a_repeat(packet)
    assert told["alice"].result is Result.WON
    assert not answers_agree_with_postgres(told, packet)


def test_a_stale_redis_does_not_change_the_answer() -> None:
    """Redis forgets Alice's win and gives her another portion; she hears of the old one."""
    packet = world.open_packet(1_000, 5)
    first = world.claim(packet, "alice")
    view = registry.view(packet.id)
    assert view is not None
    slot = flow.slot_of(view, world.person("alice").participant)
    key = stock.bucket_key(packet.id, 0, slot.bucket)
    stock_client().hdel(key, slot.participant)  # type: ignore[arg-type]

    again = world.claim(packet, "alice")
    after = world.claim(packet, "alice")

    assert again.claim == first.claim == after.claim
    # What Postgres returned was written back: the record is the old win, marked.
    (text,) = stock_client().hvals(key)
    portion, committed_ms = stock.record_parts(text)
    assert first.claim is not None and portion == first.claim.portion and committed_ms > 0


# --- 2: lanes and epochs draw portions of their own -----------------------------------------------


def lane_amounts(packet: Packet) -> list[list[int]]:
    return [
        list(
            Claim.objects.filter(lane=lane)
            .order_by("epoch", "index")
            .values_list("amount_fen", flat=True)
        )
        for lane in packet.lanes.order_by("number")
    ]


def claim_all(packet: Packet, people: int) -> None:
    for i in range(people):
        world.claim(packet, f"user{i}")


def test_two_lanes_of_one_packet_draw_different_portions() -> None:
    packet = world.open_packet(20_000, 40, lane_count=2)
    claim_all(packet, 150)
    one, two = lane_amounts(packet)
    assert len(one) == len(two) == 20
    assert sum(a == b for a, b in zip(one, two, strict=True)) <= 3


def test_control_a_key_without_the_lane_makes_all_lanes_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = proof.lane_key
    monkeypatch.setattr(
        proof, "lane_key", lambda seed, packet, lane, epoch: real(seed, packet, 0, epoch)
    )
    packet = world.open_packet(20_000, 40, lane_count=2)
    claim_all(packet, 150)
    one, two = lane_amounts(packet)
    assert one == two and len(one) == 20


def test_only_the_key_of_the_current_epoch_enters_redis() -> None:
    packet = world.open_packet()
    world.claim(packet, "alice")
    seed = stock.decrypt(packet.seed_encrypted)
    everything = repr(
        [stock_client().dump(key) for key in stock_client().keys()]  # noqa: SIM118
    ) + repr(world.redis_meta(packet))
    for secret in (seed, stock.stream_seed(packet)):
        assert secret.hex() not in everything
    assert proof.lane_key(stock.stream_seed(packet), packet.id.hex, 0, 1) in everything
    assert proof.lane_key(stock.stream_seed(packet), packet.id.hex, 0, 2) not in everything


# --- 3: a winner who asks again hears of his win, whatever has happened since --------------------


@pytest.fixture
def refusals_do_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fix of 3 off: before a refusal, nobody looks whether the caller has won."""
    perform = sync.SyncDriver._perform

    def blind(self: sync.SyncDriver, effect: Any) -> Any:
        reply = perform(self, effect)
        if isinstance(effect, AskPostgres):
            assert isinstance(reply, Truth)
            return dataclasses.replace(reply, claimed=None)
        return reply

    monkeypatch.setattr(sync.SyncDriver, "_perform", blind)


def stories_of_winners() -> Iterator[tuple[Outcome, Outcome]]:
    """(what Bob heard first, what he hears when he asks again), for four later moments."""
    sold_out = world.open_packet(100, 1)
    paused, closed, killed = world.open_packet(), world.open_packet(), world.open_packet()
    first = {p.id: world.claim(p, "bob") for p in (sold_out, paused, closed, killed)}
    services.packet_pause(packet_id=paused.id, actor="test")
    services.packet_close(packet_id=closed.id, actor="test")
    services.gate_set(gate_id=killed.gate_id, state="closed", actor="test")
    world.wipe_redis()  # the worst moment: nothing but Postgres knows
    world.forget_views()
    for packet in (sold_out, paused, closed, killed):
        yield first[packet.id], world.claim(packet, "bob")


def test_a_winner_hears_of_his_win_when_sold_out_paused_closed_or_killed() -> None:
    for first, again in stories_of_winners():
        assert again.result is Result.WON and again.replayed
        assert again.claim == first.claim


@pytest.mark.usefixtures("refusals_do_not_ask")
def test_control_a_refusal_that_does_not_ask_denies_a_win() -> None:
    results = {again.result for _, again in stories_of_winners()}
    assert results & {Result.SOLD_OUT, Result.ENDED}


# --- 4: sold_out and ended are said for good only when Postgres shows it -------------------------


def test_sold_out_is_not_said_while_somebody_merely_reserves() -> None:
    packet = world.open_packet(1_000, 2)
    claim_and_die_before_commit(packet, "ann")
    claim_and_die_before_commit(packet, "ben")

    told = world.claim(packet, "cem")
    assert told.result is Result.BUSY and told.retry_after_s == 1

    lane = packet.lanes.get()
    assert recovery.rebuild(stock_client(), lane_id=lane.id, seen_epoch=lane.epoch)
    assert world.claim(packet, "cem").result is Result.WON


def test_control_believing_redis_flips_a_final_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    real = flow._final
    monkeypatch.setattr(
        flow, "_final", lambda truth: real(truth) or Outcome(Result.SOLD_OUT, left_count=0)
    )
    packet = world.open_packet(1_000, 2)
    claim_and_die_before_commit(packet, "ann")
    claim_and_die_before_commit(packet, "ben")
    told = world.claim(packet, "cem")
    lane = packet.lanes.get()
    recovery.rebuild(stock_client(), lane_id=lane.id, seen_epoch=lane.epoch)
    monkeypatch.setattr(flow, "_final", real)
    later = world.claim(packet, "cem")
    assert (told.result, later.result) == (Result.SOLD_OUT, Result.WON)


def test_an_orphan_is_committed_for_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ann asked and her process died: the sweep commits her portion, and she hears of it."""
    monkeypatch.setattr(recovery, "ADOPT_AFTER_S", 0)
    packet = world.open_packet(1_000, 2)
    claim_and_die_before_commit(packet, "ann")

    assert recovery.stranded_adopt_due() == 0  # seen for the first time: it may be under way
    assert recovery.stranded_adopt_due() == 1
    assert recovery.stranded_adopt_due() == 0

    told = world.claim(packet, "ann")
    assert told.result is Result.WON and told.replayed
    world.claim(packet, "ben")
    assert Claim.objects.aggregate(fen=Sum("amount_fen"))["fen"] == 1_000


def test_a_stale_ended_flag_is_mended() -> None:
    """Redis believes the packet closed (an old copy); Postgres doesn't, so Ann gets her portion."""
    packet = world.open_packet()
    stock.set_flags(stock_client(), packet.id, 0, None, {"state": "closed"})
    assert world.claim(packet, "ann").result is Result.WON


def test_guards_of_the_commit_are_marked() -> None:
    """The names that the controls below rely on."""
    text = (lua.ROOT / "packets" / "sql" / "commit_claims.sql").read_text()
    for name in ("gate", "home", "fence", "index", "total"):
        assert without_guard(text, name) != text
