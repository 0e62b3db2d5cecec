"""Redis is away, and people go on winning: through Postgres alone, slower, and as exact."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models import Sum
from redis import Redis

from engine.lib import clock, sql
from engine.run.valkey import ValkeyServer
from packets import proof, recovery, revealed, services, stock
from packets.claiming import circuit, direct, sync
from packets.claiming.effects import Committed, Outcome, RedisAway, Result, Verdict
from packets.invariants import Check, invariants_check
from packets.models import Claim, Lane, LaneEpoch, Packet
from packets.tickets import ticket_issue
from tests import world
from tests.conftest import wait_until
from tests.guards import without_guard
from tests.packets.test_tickets import issue
from tests.packets.without_redis import DOORS, LOSSES, Claimer, a_server, own_stock

pytestmark = pytest.mark.django_db(transaction=True)

WAIT_S = 20.0  # the promise is five seconds; what is looked at here is what happens


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with a_server(tmp_path_factory.mktemp("valkey")) as made:
        yield made


@pytest.fixture
def server(own_server: ValkeyServer, settings: Any) -> Iterator[ValkeyServer]:
    with own_stock(own_server, settings):
        yield own_server


@pytest.fixture(params=sorted(DOORS))
def door(request: pytest.FixtureRequest, server: ValkeyServer) -> Iterator[Claimer]:
    made = DOORS[request.param]()
    yield made
    made.close()


def causes(packet: Packet) -> list[str]:
    rows = LaneEpoch.objects.filter(lane__packet=packet).order_by("epoch", "lane")
    return list(rows.values_list("cause", flat=True))


def broken_checks() -> list[Check]:
    return [check for check in invariants_check().checks if check.verdict != "holds"]


def assert_books_are_right(packet: Packet) -> None:
    """Every check is green, and after the close every portion can be recomputed."""
    assert broken_checks() == []
    services.packet_close(packet_id=packet.id, actor="test")
    assert proof.recompute(revealed.record(Packet.objects.get(id=packet.id))) == []


def claimed_fen(packet: Packet) -> int:
    total: int = Claim.objects.filter(packet=packet).aggregate(fen=Sum("amount_fen"))["fen"]
    return total


def win_all(door: Claimer, packet: Packet, names: list[str]) -> dict[str, Outcome]:
    told = {name: door.claim(packet, name) for name in names}
    assert {outcome.result for outcome in told.values()} == {Result.WON}
    return told


def assert_same_again(door: Claimer, packet: Packet, told: dict[str, Outcome]) -> None:
    for name, outcome in told.items():
        again = door.claim(packet, name)
        assert again.claim == outcome.claim and again.replayed


def people(start: int, end: int) -> list[str]:
    return [f"user{i}" for i in range(start, end)]


def each_loss() -> list[Any]:
    """Every loss at both doors; a quick choice of them, and the rest by night."""
    quick = {("edge", "killed"), ("web", "stopped"), ("edge", "full"), ("web", "replica")}
    return [
        pytest.param(at, loss, marks=[] if (at, loss) in quick else [pytest.mark.nightly])
        for at in sorted(DOORS)
        for loss in sorted(LOSSES)
    ]


@pytest.mark.parametrize(("door", "loss"), each_loss(), indirect=["door"])
def test_people_go_on_winning(door: Claimer, server: ValkeyServer, loss: str) -> None:
    packet = world.open_packet(10_007, 30)
    told = win_all(door, packet, people(0, 10))
    LOSSES[loss].lose(server)

    told |= win_all(door, packet, people(10, 11))
    assert circuit.of_process().is_open()  # nobody after the first has waited for Redis
    told |= win_all(door, packet, people(11, 20))
    assert_same_again(door, packet, told)
    assert causes(packet) == ["opened", "direct"]

    LOSSES[loss].find(server)
    wait_until(lambda: not circuit.of_process().is_open(), WAIT_S, "Redis is seen again")
    Lane.objects.filter(packet=packet).update(direct_until=clock.now())
    told |= win_all(door, packet, people(20, 30))
    assert causes(packet) == ["opened", "direct", "rebuilt"]
    assert Claim.objects.filter(packet=packet, epoch=3).count() == 10
    assert door.claim(packet, "late").result is Result.SOLD_OUT
    assert_same_again(door, packet, told)
    assert claimed_fen(packet) == 10_007
    assert_books_are_right(packet)


def test_the_last_portion_without_redis_is_the_last(door: Claimer, server: ValkeyServer) -> None:
    packet = world.open_packet(1_003, 12, lane_count=2)
    server.kill()
    heard = Counter(door.claim(packet, f"user{i}").result for i in range(60))
    # A lane that is dry says so for good only when the other one is dry as well.
    assert heard[Result.WON] == 12
    assert set(heard) <= {Result.WON, Result.BUSY, Result.SOLD_OUT}
    world.forget_views()
    assert door.claim(packet, "late").result is Result.SOLD_OUT
    assert causes(packet) == ["opened", "opened", "direct", "direct"]
    assert claimed_fen(packet) == 1_003
    assert_books_are_right(packet)


@pytest.mark.parametrize("strategy", ["fixed", "double_mean", "tiers"])
def test_every_strategy(server: ValkeyServer, strategy: str) -> None:
    tiers = [(3_000, 1), (200, 4)] if strategy == "tiers" else []
    packet = world.open_packet(10_001, 30, strategy=strategy, tiers=tiers)
    for i in range(30):
        if i == 9:
            server.kill()
        if i % 5 == 0:
            direct.forget()  # as another process would: it joins the epoch that is there
        assert world.claim(packet, f"user{i}").result is Result.WON
    assert causes(packet) == ["opened", "direct"]
    if tiers:
        assert Claim.objects.filter(tier=1).count() == 1
        assert Claim.objects.filter(tier=2).count() == 4
    assert claimed_fen(packet) == 10_001
    assert_books_are_right(packet)


def test_refusals_are_postgres_own(door: Claimer, server: ValkeyServer) -> None:
    packet = world.open_packet(1_000, 5)
    alice = door.claim(packet, "alice")
    server.kill()
    for state, said in (("paused", Result.PAUSED), ("closed", Result.ENDED)):
        if state == "paused":
            services.packet_pause(packet_id=packet.id, actor="test")
        else:
            services.packet_close(packet_id=packet.id, actor="test")
        world.forget_views()
        assert door.claim(packet, "bob").result is said
        assert door.claim(packet, "alice").claim == alice.claim
    assert Claim.objects.count() == 1
    early = world.open_packet(
        opens_at=dt.datetime(2099, 1, 1, tzinfo=dt.UTC),
        closes_at=dt.datetime(2099, 1, 2, tzinfo=dt.UTC),
    )
    assert door.claim(early, "bob").result is Result.NOT_STARTED
    assert Claim.objects.count() == 1


def end_now(packet: Packet) -> None:
    Packet.objects.filter(pk=packet.pk).update(closes_at=clock.now())
    world.forget_views()


def test_a_window_ends_at_its_end(door: Claimer, server: ValkeyServer) -> None:
    """Commits of the last moment have a grace, but here nothing was reserved in it."""
    packet = world.open_packet(1_000, 5)
    server.kill()
    told = win_all(door, packet, ["alice", "bob"])
    end_now(packet)

    assert door.claim(packet, "carol").result in (Result.BUSY, Result.ENDED)
    assert_same_again(door, packet, told)
    assert Claim.objects.count() == 2


@pytest.mark.control
def test_without_its_guard_it_would_end_later(server: ValkeyServer, owner_dsn: str) -> None:
    text = sql.load("packets", "direct_lane.sql")
    server.kill()
    with world.installed(owner_dsn, without_guard(text, "end"), text):

        def somebody_wins_after_the_end() -> bool:  # within the grace, if the machine is quick
            packet = world.open_packet(1_000, 5)
            end_now(packet)
            return world.claim(packet, "carol").result is Result.WON

        wait_until(somebody_wins_after_the_end, WAIT_S, "a win after the end")


def test_tickets_are_claims_here_too(server: ValkeyServer) -> None:
    packet = world.open_packet(1_000, 5, needs_ticket=True)
    tickets = [
        ticket_issue(
            packet_id=packet.pk, client_app_id=world.APP, subject="alice", key=key, reason="r"
        )
        for key in ("m-1", "m-2")
    ]
    server.kill()
    won = [world.claim(packet, "alice", ticket=ticket) for ticket in tickets]
    again = [world.claim(packet, "alice", ticket=ticket) for ticket in tickets]
    assert [outcome.claim for outcome in again] == [outcome.claim for outcome in won]
    assert sorted(Claim.objects.values_list("serial", flat=True)) == [1, 2]
    assert world.claim(packet, "alice").result is Result.TICKET_REQUIRED
    assert_books_are_right(packet)


def test_tries_at_a_password_wait_for_redis(door: Claimer, server: ValkeyServer) -> None:
    """They are counted there alone: without it the phrase could be guessed at."""
    packet = world.open_packet(password="open sesame")
    server.kill()
    for _ in range(2):
        with pytest.raises(RedisAway):
            door.claim(packet, "alice", password="open sesame")
    assert not Claim.objects.exists()


def test_a_connection_that_breaks_is_no_loss(door: Claimer, server: ValkeyServer) -> None:
    """Something between cuts it; the server is well, and nobody goes round it."""
    packet = world.open_packet()
    win_all(door, packet, ["alice"])
    with Redis.from_url(server.url) as link:
        link.client_kill_filter(_type="normal", skipme=True)
    win_all(door, packet, ["bob"])
    assert causes(packet) == ["opened"]
    assert not circuit.of_process().is_open()


def test_whoever_stops_a_packet_waits_for_redis_once(server: ValkeyServer) -> None:
    packets = [world.open_packet() for _ in range(3)]
    LOSSES["stopped"].lose(server)
    services.packet_pause(packet_id=packets[0].id, actor="test")
    assert circuit.of_process().is_open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock, "push_flags", lambda *_: pytest.fail("asked Redis"))
        services.packet_pause(packet_id=packets[1].id, actor="test")
        services.packet_close(packet_id=packets[2].id, actor="test")
    LOSSES["stopped"].find(server)


def test_tickets_of_one_person_without_redis(door: Claimer, server: ValkeyServer) -> None:
    packet = world.open_packet(1_000, 5, needs_ticket=True)
    mine = [issue(packet, "alice", key=f"t{i}") for i in range(3)]
    first = door.claim(packet, "alice", ticket=mine[0])
    server.kill()
    for ticket in mine[1:]:
        assert door.claim(packet, "alice", ticket=ticket).result is Result.WON
    assert door.claim(packet, "alice", ticket=mine[0]).claim == first.claim
    assert door.claim(packet, "bob", ticket=mine[1]).result is not Result.WON
    assert Claim.objects.count() == 3
    assert_books_are_right(packet)


@pytest.mark.parametrize(
    ("answer", "away"),
    [
        ("LOADING Valkey is loading the dataset in memory", True),
        ("READONLY You can't write against a read only replica.", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", True),
        ("MISCONF Errors writing to the AOF file", True),
        ("BUSY Valkey is busy running a script.", True),
        ("NOAUTH Authentication required.", True),
        ("ERR user_script:12: attempt to compare nil with number", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("MOVED 3999 127.0.0.1:6381", False),
    ],
)
def test_what_a_server_says_when_it_cannot_be_used(answer: str, away: bool) -> None:
    """A defect of ours is no reason to go round Redis: it would never be noticed."""
    assert circuit.says_away(answer) is away


def test_the_sweep_does_not_wait_for_redis_packet_by_packet(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        world.open_packet()
    asked: list[Any] = []
    read = stock.read_many
    monkeypatch.setattr(stock, "read_many", lambda *args: (asked.append(args), read(*args))[1])
    server.kill()
    assert recovery.stranded_adopt_due() == 0
    assert len(asked) == 1


def test_a_packet_opened_without_redis_can_be_claimed(server: ValkeyServer) -> None:
    server.kill()
    packet = world.open_packet()
    assert Lane.objects.get().state == "loading"
    assert world.claim(packet, "alice").result is Result.WON


class TestTwoProcesses:
    """One can't reach Redis, the other can: they must not fence each other with epochs."""

    ROUNDS = 15

    @pytest.fixture(autouse=True)
    def a_long_lease(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However slow the machine is, it doesn't lapse between two claims."""
        monkeypatch.setattr(direct, "LEASE", dt.timedelta(minutes=1))

    def disagree(self, packet: Packet) -> list[str]:
        blind = circuit.Circuit()
        blind._away = True
        seeing = circuit.Circuit()
        for i in range(self.ROUNDS):
            for who in (blind, seeing):
                driver = sync.SyncDriver(circuit=who)
                view = sync.registry.view(packet.id)
                assert view is not None
                person = world.person(f"{i}-{who is blind}")
                outcome = driver.run(sync.flow.claim(view, person, sync.ClaimRequest(), b""))
                assert outcome.result is Result.WON
        return causes(packet)

    def test_the_one_that_can_follows(self) -> None:
        packet = world.open_packet(10_000, 100)
        assert self.disagree(packet) == ["opened", "direct"]
        assert_books_are_right(packet)

    @pytest.mark.control
    def test_control_without_the_lease_they_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(direct, "LEASE", dt.timedelta(0))
        packet = world.open_packet(10_000, 100)
        assert self.disagree(packet) == ["opened", *["direct", "rebuilt"] * self.ROUNDS]
        assert_books_are_right(packet)

    def test_when_the_other_is_gone_the_lane_is_redis_again(self) -> None:
        packet = world.open_packet(10_000, 100)
        self.disagree(packet)
        assert world.claim(packet, "follower").result is Result.WON
        assert causes(packet) == ["opened", "direct"]
        Lane.objects.update(direct_until=clock.now())
        for name in ("unfollowing", "fast"):
            assert world.claim(packet, name).result is Result.WON
        assert causes(packet) == ["opened", "direct", "rebuilt"]
        assert world.redis_meta(packet)[b"epoch"] == b"3"
        assert_books_are_right(packet)


@pytest.mark.parametrize(("door", "wiped"), [("web", False), ("edge", True)], indirect=["door"])
def test_a_crowd_that_loses_redis_for_good(
    door: Claimer, server: ValkeyServer, wiped: bool
) -> None:
    """In mid-crowd; later it comes back with what it knew, or with nothing."""
    packet = world.open_packet(100_003, 300)
    names = people(0, 500)
    told: dict[str, Outcome] = {}

    def ask(some: list[str]) -> None:
        for name, answer in zip(some, door.crowd(packet, some), strict=True):
            if isinstance(answer, Outcome):
                if answer.result is Result.WON and name in told:
                    assert answer.claim == told[name].claim
                if answer.result is Result.WON:
                    told[name] = answer

    ask(names[:100])
    server.kill()
    ask(names[50:250])
    wait_until(lambda: (ask(names[50:250]), set(names[:250]) <= set(told))[1], 20, "250 wins")
    assert causes(packet) == ["opened", "direct"]

    server.start(wipe=wiped)
    wait_until(lambda: not circuit.of_process().is_open(), WAIT_S, "Redis is seen again")

    late = iter(names[250:])

    def fast() -> bool:
        ask([next(late)])
        time.sleep(0.1)
        return causes(packet)[-1] == "rebuilt"

    wait_until(fast, WAIT_S, "the fast path")
    wait_until(lambda: (ask(names), len(told) == 300)[1], 20, "300 wins")
    ask(names)
    world.forget_views()
    assert door.claim(packet, "late").result is Result.SOLD_OUT
    rows = dict(Claim.objects.filter(packet=packet).values_list("id", "amount_fen"))
    heard = {
        outcome.claim.id: outcome.claim.portion.amount_fen
        for outcome in told.values()
        if outcome.claim
    }
    assert heard == rows and sum(rows.values()) == 100_003
    assert_books_are_right(packet)


class TestWhatWasReservedBefore:
    """A portion that Redis gave out just before it was lost is void: Postgres gives it again."""

    def story(self) -> Verdict:
        packet = world.open_packet(1_000, 10, strategy="fixed")
        world.claim(packet, "zoe")  # so that the two portions have different numbers
        view = sync.registry.view(packet.id)
        assert view is not None
        steps = sync.flow.claim(view, world.person("ann"), sync.ClaimRequest(), b"")
        driver = sync.SyncDriver(circuit=circuit.Circuit())
        commit = steps.send(driver.perform(next(steps)))  # reserved, and not committed yet
        blind = circuit.Circuit()
        blind._away = True
        sync.SyncDriver(circuit=blind).run(
            sync.flow.claim(view, world.person("ben"), sync.ClaimRequest(), b"")
        )
        committed: Committed = driver.perform(commit)
        assert committed.lane_epoch == 2
        return committed.verdict

    def test_it_is_fenced(self) -> None:
        assert self.story() is Verdict.FENCED
        assert Claim.objects.count() == 2

    @pytest.mark.control
    def test_control_without_the_fence_the_books_show_it(self, owner_dsn: str) -> None:
        text = sql.load("packets", "commit_claims.sql")
        with world.installed(owner_dsn, without_guard(text, "fence"), text):
            assert self.story() is Verdict.WON
        assert {check.name for check in broken_checks()} == {"epoch_order", "epoch_starts"}
