"""The arithmetic of the limits, and when a claim's count is kept or given back."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.lib import lua
from engine.lib.errors import ServiceError
from engine.lib.redis import stock as stock_client
from packets.claiming import circuit, flow, limits, sync
from packets.claiming.effects import (
    CheckLimits,
    ClaimRequest,
    Commit,
    Committed,
    Effect,
    GiveBack,
    Outcome,
    Peek,
    Rebuild,
    RedisAway,
    Reserve,
    Result,
    Unavailable,
    Verdict,
)
from packets.claiming.limits import Asked, Charge, Measure, Method, OverLimit, Rule, Subject
from packets.limit_rules import MAX_RULES, Wanted, limit_rule_set, sentence
from packets.models import LimitRule, Packet
from tests import world
from tests.packets.settling import locked

pytestmark = pytest.mark.django_db(transaction=True)


def rule(method: Method, limit: int, window_s: int = 86_400, burst: int = 0) -> Rule:
    return Rule(1, Subject.IP, Measure.CLAIMS, method, limit, window_s, burst, 0, True)


def charge(made: Rule) -> Charge:
    return Charge(made, f"limit:{{test:{uuid.uuid4().hex}}}")


def ask(one: Charge) -> Asked:
    return limits.asked(one, one.ask().run(stock_client()))


# --- GCRA -----------------------------------------------------------------------------------------


def pace_at(now_us: int) -> lua.Script:
    """The script by a clock of the test's, by which no key runs out."""
    text = (lua.ROOT / "packets" / "lua" / "limit_pace.lua").read_text()
    frozen = f"local time = {{'{now_us // 1_000_000}', '{now_us % 1_000_000}'}}"
    lines = text.replace("local time = redis.call('TIME')", frozen).splitlines(keepends=True)
    return lua.parse("limit_pace", "".join(x for x in lines if "PEXPIRE" not in x), {})


@settings(max_examples=60, deadline=None)
@given(
    per=st.tuples(st.integers(1, 100_000), st.integers(1, 5)),
    burst=st.integers(1, 50),
    gaps=st.lists(st.integers(0, 300_000), min_size=1, max_size=60),
)
def test_the_pace_is_gcra_to_the_last_fraction(
    per: tuple[int, int], burst: int, gaps: Sequence[int]
) -> None:
    """Against exact fractions (ATM Forum's virtual scheduling), at any rate, whole or not."""
    limit, window_s = per
    key = f"limit:{{test:{uuid.uuid4().hex}}}"
    interval = Fraction(window_s * 1_000_000, limit)
    arrival = Fraction(0)
    now_us = 1_800_000_000_000_000
    for gap in gaps:
        now_us += gap
        arrival = max(arrival, Fraction(now_us))
        allowed = arrival + interval - burst * interval <= now_us
        reply = pace_at(now_us).call(stock_client(), [key], [window_s * 1_000_000, limit, burst, 1])
        assert bool(reply[0]) is allowed
        if allowed:
            arrival += interval


@pytest.mark.parametrize(("limit", "burst"), [(90_000, 1_000), (66_667, 5_000), (7, 7)])
def test_a_burst_is_exact_where_the_interval_is_no_whole_number(limit: int, burst: int) -> None:
    key = f"limit:{{test:{uuid.uuid4().hex}}}"
    script = pace_at(1_800_000_000_000_000)
    args = [1_000_000, limit, burst, 1]
    got = [script.call(stock_client(), [key], args)[0] for _ in range(burst + 20)]
    assert sum(got) == burst and got[:burst] == [1] * burst


@pytest.mark.parametrize("made", [rule(Method.WINDOW, 3), rule(Method.PACE, 3, burst=3)])
def test_what_is_given_back_may_be_taken_again(made: Rule) -> None:
    one = charge(made)
    taken = [ask(one) for _ in range(4)]
    assert [answer.allowed for answer in taken] == [True, True, True, False]
    assert [answer.left for answer in taken] == [2, 1, 0, 0]
    one.give_back(taken[0].window).run(stock_client())
    assert [ask(one).allowed for _ in range(2)] == [True, False]
    # What was counted in a window that is over isn't given back to another.
    if made.method is Method.WINDOW:
        one.give_back(taken[0].window - 1).run(stock_client())
        assert not ask(one).allowed


# --- when a count is kept -------------------------------------------------------------------------


class Watched(sync.SyncDriver):
    """Does what is asked, and what the test wants in its place."""

    instead: dict[type, Any]
    seen: list[Effect]

    def perform(self, effect: Effect) -> Any:
        self.seen.append(effect)
        act = self.instead.get(type(effect))
        return super().perform(effect) if act is None else act(effect)


def steps(packet: Packet, name: str) -> flow.Flow:
    sync.registry.forget()
    view = sync.registry.view(packet.id)
    assert view is not None
    return flow.claim(view, world.person(name, device="d"), ClaimRequest(), b"")


def run(steps: flow.Flow, **instead: Any) -> tuple[Outcome | Exception, list[Effect]]:
    driver = Watched()
    driver.seen = []
    by_name = {kind.__name__: kind for kind in (Commit, Reserve, CheckLimits, Peek, Rebuild)}
    driver.instead = {by_name[name]: act for name, act in instead.items()}
    try:
        return driver.run(steps), driver.seen
    except (Unavailable, OverLimit) as error:
        return error, driver.seen


def counted(packet: Packet) -> int:
    """Of the one device."""
    made = LimitRule.objects.get().rule
    (one,) = limits.charges_of([made], world.person("x", device="d"), "", packet.id.hex, 0)
    return int(stock_client().hget(one.key, "count") or 0)


@pytest.fixture
def packet() -> Packet:
    limit_rule_set(wanted=Wanted(subject="device", limit=2, window_s=86_400), actor="x")
    return world.open_packet(1_000, 10)


def fails(error: Exception) -> Any:
    def act(effect: Effect) -> Any:
        raise error

    return act


def test_a_503_before_anything_is_reserved_gives_back(packet: Packet) -> None:
    heard, seen = run(steps(packet, "alice"), Reserve=fails(Unavailable("late")))
    assert isinstance(heard, Unavailable) and isinstance(seen[-1], GiveBack)
    assert counted(packet) == 0


def test_a_503_of_whoever_holds_a_portion_keeps_the_count(packet: Packet) -> None:
    heard, _ = run(steps(packet, "alice"), Commit=fails(Unavailable("locked")))
    assert isinstance(heard, Unavailable) and counted(packet) == 1
    won, seen = run(steps(packet, "alice"))
    assert isinstance(won, Outcome) and won.result is Result.WON
    assert counted(packet) == 1 and not any(isinstance(e, CheckLimits) for e in seen)


def test_twins_are_counted_once_whoever_comes_first(packet: Packet) -> None:
    def twin_first(effect: Commit) -> Any:
        other, _ = run(steps(packet, "alice"))
        assert isinstance(other, Outcome) and other.result is Result.WON
        return sync.SyncDriver().perform(effect)

    won, _ = run(steps(packet, "alice"), Commit=twin_first)
    assert isinstance(won, Outcome) and won.replayed and counted(packet) == 1


def reach(steps: flow.Flow, kind: type, reply: Any = None) -> Effect:
    """On to the first effect of this kind, which isn't performed yet."""
    effect = steps.send(reply)
    while not isinstance(effect, kind):
        effect = steps.send(sync.SyncDriver().perform(effect))
    return effect


def finish(steps: flow.Flow, effect: Effect) -> Outcome:
    try:
        while True:
            effect = steps.send(sync.SyncDriver().perform(effect))
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome


@pytest.mark.parametrize("first", [0, 1])
def test_twins_that_were_both_counted_count_once(packet: Packet, first: int) -> None:
    """Whichever is committed first; the same of what they are worth."""
    limit_rule_set(
        wanted=Wanted(subject="packet", measure="amount", limit=10_000, window_s=86_400), actor="x"
    )
    twins = [steps(packet, "alice") for _ in range(2)]
    reserves = [reach(twin, Reserve) for twin in twins]
    commits = [
        reach(twin, Commit, sync.SyncDriver().perform(reserve))
        for twin, reserve in zip(twins, reserves, strict=True)
    ]
    one, other = (finish(twins[at], commits[at]) for at in (first, 1 - first))
    assert one.claim == other.claim and one.claim is not None
    by_subject = {row.subject: row.rule for row in LimitRule.objects.all()}
    device, worth = (
        limits.charges_of(
            [by_subject[subject]], world.person("x", device="d"), "", packet.id.hex, 0
        )
        for subject in ("device", "packet")
    )
    assert int(stock_client().hget(device[0].key, "count") or 0) == 1
    assert int(stock_client().hget(worth[0].key, "count") or 0) == one.claim.portion.amount_fen


def test_a_503_after_a_fence_keeps_the_count(packet: Packet) -> None:
    """The record in Redis stands, though its portion is void: who comes back isn't counted."""

    def fenced(effect: Commit) -> Committed:
        return Committed(Verdict.FENCED, None, effect.portion.epoch + 1)

    heard, _ = run(
        steps(packet, "alice"), Commit=fenced, Rebuild=fails(Unavailable("the lane is locked"))
    )
    assert isinstance(heard, Unavailable)
    won, _ = run(steps(packet, "alice"))
    assert isinstance(won, Outcome) and won.result is Result.WON and counted(packet) == 1


def test_a_locked_lane_costs_nobody_who_claims_without_redis_a_count(
    packet: Packet, owner_dsn: str
) -> None:
    """Another process serves the lane without Redis, and this one follows it."""
    view = sync.registry.view(packet.id)
    assert view is not None
    slot = flow.slot_of(view, world.person("alice").participant)
    with locked(owner_dsn, f"SELECT 1 FROM packets_lane WHERE id = {slot.lane_id} FOR UPDATE"):
        circuit.of_process().follow(slot)
        heard, _ = run(steps(packet, "alice"))
    circuit.of_process().unfollow(slot)
    assert isinstance(heard, Unavailable) and counted(packet) == 0


def test_redis_that_goes_away_in_between(packet: Packet) -> None:
    gone = fails(RedisAway("gone"))
    heard, _ = run(steps(packet, "alice"), CheckLimits=gone)
    assert isinstance(heard, RedisAway)
    LimitRule.objects.update(when_away="allow")
    won, _ = run(steps(packet, "alice"), CheckLimits=gone)
    assert isinstance(won, Outcome) and won.result is Result.WON


def test_nobody_who_copies_redis_finds_an_address_by_trying_all() -> None:
    made = rule(Method.WINDOW, 3)
    keys = [
        limits.charges_of([made], world.person("x"), "192.0.2.7", "p", 0, secret)[0].key
        for secret in (b"", b"one", b"one", b"another")
    ]
    assert keys[1] == keys[2] and len(set(keys)) == 3


def test_the_doors_key_what_redis_holds_of_an_address() -> None:
    limit_rule_set(wanted=Wanted(subject="ip", limit=2, window_s=86_400), actor="x")
    packet = world.open_packet(1_000, 10)
    answer = sync.claim(packet.id, world.person("alice"), ClaimRequest(), "192.0.2.7")
    assert answer is not None
    made = LimitRule.objects.get().rule
    readable, keyed = (
        limits.charges_of([made], world.person("x"), "192.0.2.7", packet.id.hex, 0, secret)[0].key
        for secret in (b"", sync.password_key())
    )
    assert not stock_client().exists(readable) and stock_client().exists(keyed)


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("limit", {"limit": 0}),
        ("window_s", {"window_s": 0}),
        ("window_s", {"window_s": 32 * 86_400}),
        ("timezone", {"timezone": "Mars/Olympus"}),
        ("burst", {"burst": 5}),
        ("burst", {"method": "pace"}),
        ("limit", {"method": "pace", "burst": 1, "limit": 100_001, "window_s": 1}),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused_by_its_field(
    field: str, wrong: dict[str, Any]
) -> None:
    values = {"subject": "ip", "limit": 3, "window_s": 60, **wrong}
    with pytest.raises(ServiceError) as refused:
        limit_rule_set(wanted=Wanted(**values), actor="x")
    assert refused.value.field == field and not LimitRule.objects.exists()


def test_too_many_in_one_place_are_refused() -> None:
    for _ in range(MAX_RULES):
        limit_rule_set(wanted=Wanted(subject="ip", limit=3, window_s=60), actor="x")
    with pytest.raises(ServiceError) as refused:
        limit_rule_set(wanted=Wanted(subject="ip", limit=3, window_s=60), actor="x")
    assert refused.value.code == "too_many" and LimitRule.objects.count() == MAX_RULES


def test_a_rule_reads_as_a_sentence(packet: Packet) -> None:
    assert sentence(LimitRule.objects.get()) == (
        "One device in all campaigns together may make 2 claims every day."
    )
    paced = limit_rule_set(
        wanted=Wanted(
            subject="packet", packet=packet, measure="amount", method="pace",
            limit=100_000, window_s=7_200, burst=5_000,
        ),
        actor="x",
    )  # fmt: skip
    assert "may win ¥1,000.00 every 2 hours. They are spread evenly; ¥50.00" in sentence(paced)
