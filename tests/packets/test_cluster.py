"""The stock in a cluster: both doors, slots that move while people claim, a master that is lost."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis.crc import key_slot

from engine import checks
from engine.lib import lua, redis
from engine.run.paths import free_port
from packets import recovery, stock
from packets.claiming import circuit
from packets.claiming.cluster_pipe import slot_of
from packets.claiming.effects import Outcome, Result
from packets.limit_rules import Wanted, limit_rule_set
from packets.models import Claim, LimitRule, Packet
from tests import world
from tests.cluster import Cluster, cluster, until
from tests.guards import without_guard
from tests.packets.crowd import Heard, crowd

pytestmark = pytest.mark.django_db(transaction=True)

COMMIT_CLAIMS = lua.ROOT / "packets" / "sql" / "commit_claims.sql"
AGAIN_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Stories that lose a master come last, and each loses another one."""
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def use(settings: Any) -> Iterator[Callable[[Cluster], None]]:
    """From here on the stock is there."""

    def switch(made: Cluster) -> None:
        settings.REDIS_URL, settings.REDIS_CLUSTER = made.url, True
        redis.stock.cache_clear()
        circuit.reset()

    yield switch
    redis.stock.cache_clear()
    circuit.reset()


@pytest.fixture
def nodes(shared: Cluster, use: Callable[[Cluster], None]) -> Iterator[Cluster]:
    use(shared)
    yield shared
    for master in shared.masters:
        if master.process is not None:
            master.client.flushall()


def lane_slot(packet: Packet, lane: int = 0) -> int:
    return slot_of(stock.meta_key(packet.id, lane))


def names(people: int) -> list[str]:
    return [f"person{number}" for number in range(people)]


def in_the_table(packet: Packet) -> dict[Any, int]:
    return dict(Claim.objects.filter(packet=packet).values_list("id", "amount_fen"))


def in_background(work: Callable[[], Heard]) -> Callable[[], Heard]:
    """Start it; the result is what the returned function waits for."""
    told: list[Heard] = []
    thread = threading.Thread(target=lambda: told.append(work()))
    thread.start()

    def result() -> Heard:
        thread.join(120)
        assert told, "the crowd failed or hangs"
        return told[0]

    return result


# --- one slot for everything that belongs together ------------------------------------------------


def test_slots_are_what_the_servers_say() -> None:
    for key in ("a", "{a}b", "x{a}", "{}a", "{}{a}", "{a", "a}b{c}d", "lane:{ff:0}:meta", "红{包}"):
        assert slot_of(key) == slot_of(key.encode()) == key_slot(key.encode())


def test_every_script_is_of_one_slot() -> None:
    """A script has one key, or keys of one lane, which share a hash tag."""
    packet = world.draft_packet().id
    of_a_lane = {
        "meta": stock.meta_key(packet, 7),
        "bucket": stock.bucket_key(packet, 7, 123),
        "tries": stock.tries_key(packet, 7),
    }
    assert len({slot_of(key) for key in of_a_lane.values()}) == 1
    for path in sorted((lua.ROOT / "packets" / "lua").glob("*.lua")):
        if not path.read_text().startswith("-- script:"):
            continue
        script = lua.load("packets", path.stem)
        assert len(script.keys) == 1 or set(script.keys) <= of_a_lane.keys(), path.name


# --- people claim ---------------------------------------------------------------------------------


def test_many_lanes_through_both_doors(nodes: Cluster) -> None:
    packets = [world.open_packet(40_000, 200, lane_count=4) for _ in range(2)]
    slots = [lane_slot(packet, lane) for packet in packets for lane in range(4)]
    for packet in packets:
        web = world.together(
            [lambda n=n, p=packet: world.claim(p, f"person{n}") for n in range(10)], threads=4
        )
        heard = crowd(packet, names(40), in_flight=16)

        told = {o.claim.id: o.claim.portion.amount_fen for o in web if not isinstance(o, Exception)}
        assert told.items() <= heard.wins.items()  # who comes to the other door is known there
        assert heard.wins == in_the_table(packet)
        assert heard.results == {Result.WON: 40}
    holders = {nodes.owner(slot).name for slot in slots}
    kept = {node.name for node in nodes.masters if node.client.dbsize()}
    assert holders <= kept


def test_limits_are_exact_over_many_slots(nodes: Cluster) -> None:
    """Five subjects of a claim, each in a slot of its own; at the web door and at the edge."""
    for subject, most in (("subnet", 30), ("ip", 40), ("campaign", 50), ("packet", 60)):
        limit_rule_set(wanted=Wanted(subject=subject, limit=most, window_s=86_400), actor="x")
    packet = world.open_packet(40_000, 200, lane_count=4)
    web = world.together([lambda n=n: world.claim(packet, f"w{n}") for n in range(20)], threads=4)
    assert all(isinstance(outcome, Outcome) for outcome in web)

    heard = crowd(packet, names(40), in_flight=16)

    assert heard.results == {Result.WON: 10, Result.BLOCKED: 30}
    assert Claim.objects.count() == 30
    # What the other subjects had counted of those who were refused is given back.
    LimitRule.objects.filter(subject="subnet").update(is_active=False)
    world.forget_views()
    heard = crowd(packet, names(40), in_flight=16)  # ten of them have won
    assert heard.results == {Result.WON: 20, Result.BLOCKED: 20}
    assert Claim.objects.count() == 40


def test_a_node_that_knows_no_script_is_taught_it(nodes: Cluster) -> None:
    packet = world.open_packet(10_000, 10)
    assert world.claim(packet, "alice").result is Result.WON
    for node in nodes.masters:
        node.client.script_flush()
    assert crowd(packet, names(3)).results == {Result.WON: 3}
    for node in nodes.masters:
        node.client.script_flush()
    assert world.claim(packet, "bob").result is Result.WON


def test_everything_else_that_the_stock_does(nodes: Cluster) -> None:
    packet = world.open_packet(10_000, 200, lane_count=2)
    world.claim(packet, "alice")
    client = redis.stock()
    assert stock.read_many(client, packet.id, [0, 1]).keys() == {0, 1}
    for lane in packet.lanes.all():
        stock.expire(client, packet.id, lane)
        assert client.ttl(stock.meta_key(packet.id, lane.number)) > 0
    lane = packet.lanes.all()[0]
    assert not recovery.rebuild(client, lane_id=lane.id, seen_epoch=0)  # looks for the master anew
    redis.Probe().ask()
    assert sum(node.client.dbsize() for node in nodes.masters) >= 6  # each master was asked
    stock.wipe_all(client)
    assert stock.read_many(client, packet.id, [0, 1]) == {}
    assert world.claim(packet, "alice").replayed


def test_checks_know_a_cluster(nodes: Cluster, settings: Any) -> None:
    assert checks.cluster_check(None) == checks.eviction_check(None) == []
    settings.REDIS_CLUSTER, settings.BROKER_URL = False, nodes.url
    assert [found.id for found in checks.cluster_check(None)] == ["laisee.E008", "laisee.E009"]


def test_a_cluster_that_is_away_lets_claims_go_on(settings: Any) -> None:
    """Also for a process that starts meanwhile."""
    packet = world.open_packet(10_000, 30)
    settings.REDIS_URL, settings.REDIS_CLUSTER = f"redis://127.0.0.1:{free_port()}/0", True
    redis.stock.cache_clear()
    circuit.reset()
    try:
        assert world.claim(packet, "alice").result is Result.WON
        circuit.reset()
        assert crowd(packet, names(3)).results == {Result.WON: 3}
        assert circuit.of_process().is_open()
    finally:
        redis.stock.cache_clear()
        circuit.reset()


# --- slots move -----------------------------------------------------------------------------------


def moving_slots(nodes: Cluster, people: int, rounds: int) -> None:
    packet = world.open_packet(people * 200, people * 2, lane_count=2)
    heard = in_background(lambda: crowd(packet, names(people), in_flight=32))
    until(lambda: Claim.objects.filter(packet=packet).count() > people // 20, "a crowd")
    moved = 0
    for lane in (0, 1):
        slot = lane_slot(packet, lane)
        chain = [nodes.owner(slot), *(n for n in nodes.masters if n is not nodes.owner(slot))]
        for number in range(rounds):
            moved += nodes.move_slot(slot, chain[number % 3], chain[(number + 1) % 3])
        if rounds % 3:
            nodes.move_slot(slot, chain[rounds % 3], chain[0])  # for the next story
    told = heard()

    assert moved > 0
    assert told.results == {Result.WON: people}
    assert told.wins == in_the_table(packet)
    assert told.unavailable == told.busy == 0
    assert {lane.epoch for lane in packet.lanes.all()} == {1}  # nobody had to rebuild anything


def test_slots_move_while_people_claim(nodes: Cluster) -> None:
    moving_slots(nodes, people=1_000, rounds=2)


@pytest.mark.nightly
def test_slots_move_again_and_again(nodes: Cluster) -> None:
    moving_slots(nodes, people=20_000, rounds=30)


# --- a master is lost -----------------------------------------------------------------------------


def packet_on_a_living_master(nodes: Cluster, total_fen: int, count: int) -> Packet:
    while True:
        packet = world.open_packet(total_fen, count)
        if nodes.owner(lane_slot(packet)).process is not None:
            return packet


def lose_the_master(nodes: Cluster, people: int, moments: random.Random) -> float:
    """Under a crowd; its replica, promoted, knows nothing of the last wins. Returns the seconds
    from the promotion to the next win."""
    packet = packet_on_a_living_master(nodes, people * 100, people)
    wins = Claim.objects.filter(packet=packet)
    master = nodes.owner(lane_slot(packet))
    replica = nodes.replica_of(master)
    cut_at = moments.randint(people // 20, people // 4)
    lost_at = cut_at + moments.randint(1, people // 4)

    heard = in_background(lambda: crowd(packet, names(people), in_flight=32))
    until(lambda: wins.count() >= cut_at, "a crowd")
    nodes.cut_off(replica)
    until(lambda: wins.count() >= lost_at, "wins that the replica doesn't know")
    master.kill()
    nodes.promote(replica)
    promoted, before = time.monotonic(), wins.count()
    until(lambda: wins.count() > min(before, people - 1), "a win after the promotion")
    again_s = time.monotonic() - promoted
    told = heard()

    assert told.results == {Result.WON: people}
    assert told.wins == in_the_table(packet)
    assert sum(told.wins.values()) == people * 100
    repeats = crowd(packet, names(people), in_flight=32)
    assert repeats.results == {Result.WON: people}
    assert repeats.wins == told.wins
    assert redis.stock().exists(stock.meta_key(packet.id, 0))
    return again_s


def test_a_master_is_lost_and_its_replica_knows_less(nodes: Cluster) -> None:
    assert lose_the_master(nodes, 600, random.Random(1)) < AGAIN_WITHIN_S


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_masters_are_lost_twenty_times(
    tmp_path: Path, use: Callable[[Cluster], None], capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    moments = random.Random(seed)
    waits = []
    while len(waits) < 20:
        with cluster(tmp_path / f"cluster{len(waits)}") as made:
            use(made)
            for _ in range(min(len(made.masters), 20 - len(waits))):
                waits.append(lose_the_master(made, 2_000, moments))
    with capsys.disabled():
        print(
            f"\n20 masters lost (seed {seed}): 40,000 wins answered, none lost or changed, none "
            f"oversold; claims again after at most {max(waits):.2f} s"
        )
    assert max(waits) < AGAIN_WITHIN_S


def stale_replica(nodes: Cluster) -> Packet:
    """Its replica, promoted, has half of the ten wins."""
    packet = packet_on_a_living_master(nodes, 3_000, 30)
    master = nodes.owner(lane_slot(packet))
    replica = nodes.replica_of(master)
    for number in range(5):
        assert world.claim(packet, f"early{number}").result is Result.WON
    assert master.client.wait(1, 10_000) == 1
    nodes.cut_off(replica)
    for number in range(5):
        assert world.claim(packet, f"late{number}").result is Result.WON
    master.kill()
    nodes.promote(replica)
    return packet


def portions(packet: Packet) -> Counter[tuple[int, int]]:
    return Counter(Claim.objects.filter(packet=packet).values_list("epoch", "index"))


def test_a_stale_replica_gives_no_portion_twice(nodes: Cluster) -> None:
    packet = stale_replica(nodes)
    assert world.claim(packet, "bob").result is Result.WON
    assert world.claim(packet, "late4").replayed
    assert crowd(packet, names(5)).results == {Result.WON: 5}
    assert set(portions(packet).values()) == {1}
    assert packet.lanes.get().epoch == 2


@pytest.mark.control
def test_control_without_the_index_guard_it_does(nodes: Cluster, owner_dsn: str) -> None:
    text = COMMIT_CLAIMS.read_text()
    packet = stale_replica(nodes)
    with (
        psycopg.connect(owner_dsn, autocommit=True) as owner,
        world.installed(owner_dsn, without_guard(text, "index"), text),
    ):
        owner.execute("ALTER TABLE packets_claim DROP CONSTRAINT claim_index_once")
        try:
            assert world.claim(packet, "bob").result is Result.WON
            assert portions(packet)[1, 5] == 2
        finally:
            owner.execute("ALTER TABLE packets_claim DISABLE TRIGGER USER")
            owner.execute("DELETE FROM packets_claim")
            owner.execute("ALTER TABLE packets_claim ENABLE TRIGGER USER")
            owner.execute(
                "ALTER TABLE packets_claim ADD CONSTRAINT claim_index_once"
                " UNIQUE (lane_id, epoch, index)"
            )
