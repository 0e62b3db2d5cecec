"""Two neighbouring versions understand each other: what each writes, the other reads."""

from __future__ import annotations

import inspect
import re
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

from engine.celery import SWEEPS, app
from engine.lib import ids, lua, sql
from engine.lib.redis import stock as stock_client
from packets import claimants, proof, splitting, stock, tasks
from packets.claiming.effects import Portion, Reserve, Reserved, Slot, Verdict
from packets.claiming.sync import reserve_call
from packets.invariants import invariants_check
from packets.settlement import settle_lane
from tests import world
from tests.factories import make_claims
from tests.packets.settling import assert_all_paid_once, one_lane
from tests.upgrading import previous

pytestmark = pytest.mark.django_db(transaction=True)

PACKET = uuid.UUID(int=0x0123456789ABCDEF0123456789ABCDEF)
WHO = bytes(range(16))
PORTION = Portion(epoch=3, index=41, amount_fen=9_007_199_254_740_991, tier=2)
AT_MS = 1_771_272_000_123
Ask = Callable[[Slot], list[Any]]


def ask_current(slot: Slot) -> list[Any]:
    reply: list[Any] = reserve_call(Reserve(slot, known_absent=True)).run(stock_client())
    return reply


def ask_previous(slot: Slot) -> list[Any]:
    """The call as the previous version makes it."""
    tag = f"lane:{{{slot.packet.hex}:{slot.lane_number}}}"
    keys = (f"{tag}:meta", f"{tag}:b:{slot.bucket}")
    reply: list[Any] = previous.script("claim").call(stock_client(), keys, (slot.participant, b"1"))
    return reply


ASKS: dict[str, Ask] = {"previous": ask_previous, "current": ask_current}
BOTH_WAYS = pytest.mark.parametrize(
    ("first", "second"), [("previous", "current"), ("current", "previous")]
)


# --- places ---------------------------------------------------------------------------------------


def test_everything_has_its_place_where_it_had_it() -> None:
    """Two versions that disagree about a place would each give a portion to one person."""
    assert ids.participant_digest(7, "u-1").hex() == "a978b798f8cc1c595a109f3a686e0ac1"
    assert ids.home_lane(b"home" * 4, WHO, 64) == 37
    assert ids.bucket(WHO, 500) == 159
    assert str(ids.claim_id(PACKET, WHO, 0)) == "2878e209-259a-7870-a328-15be1be79bbc"
    assert str(ids.claim_id(PACKET, WHO, 3)) == "79f5ab04-20dc-9072-ecfc-28fa2fc5f3d2"
    assert stock.member(WHO, 0) == WHO
    assert stock.member(WHO, 3) == WHO + b"\0\0\0\3"
    assert [stock.buckets_for(count) for count in (1, 64, 65, 10**9)] == [1, 1, 2, 1_000_000]
    tag = "lane:{0123456789abcdef0123456789abcdef:3}"
    assert stock.meta_key(PACKET, 3) == f"{tag}:meta"
    assert stock.bucket_key(PACKET, 3, 17) == f"{tag}:b:17"
    assert stock.tries_key(PACKET, 3) == f"{tag}:tries"


def test_draws_come_from_the_same_key() -> None:
    assert proof.lane_key(b"seed" * 8, PACKET.hex, 3, 2) == (
        "fd1046bb54c570f8b1de9f4bbcfb1acdbc107727b5cf7750475a43a5b289eec9"
    )


# --- records --------------------------------------------------------------------------------------


def test_each_reads_the_other_s_record() -> None:
    numbers = (PORTION.epoch, PORTION.index, PORTION.amount_fen, PORTION.tier)
    for ms in (0, AT_MS):
        written = previous.record(*numbers, ms)
        assert stock.record_parts(written.encode()) == (PORTION, ms)
        assert previous.record_numbers(stock.record(PORTION, ms).encode()) == (*numbers, ms)


@BOTH_WAYS
def test_a_portion_that_one_has_given_the_other_gives_again(first: str, second: str) -> None:
    packet = world.open_packet(10_000, 10)
    slot = world.slot_of(packet, "ann")
    given = ASKS[first](slot)
    again = ASKS[second](slot)
    assert (given[0], again[0]) == (Reserved.NEW, Reserved.REPEAT)
    assert again[1:6] == given[1:6]
    key, field = stock.bucket_key(packet.id, 0, slot.bucket), stock.member(slot.participant, 0)
    # What was committed is marked by whoever committed it, and is an answer for both.
    portion = Portion(*given[1:5])
    marked = (
        stock.record(portion, AT_MS)
        if first == "current"
        else previous.record(portion.epoch, portion.index, portion.amount_fen, portion.tier, AT_MS)
    )
    stock_client().hset(key, field, marked)
    assert ASKS[second](slot) == [Reserved.MARKED, *given[1:6], AT_MS]


# --- lanes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", ["previous", "current"])
@pytest.mark.parametrize("strategy", ["fixed", "lucky", "double_mean", "tiers"])
def test_a_lane_is_cut_by_both_in_turns_as_by_one(strategy: str, loader: str) -> None:
    tiers = [(3_000, 1), (200, 4)] if strategy == "tiers" else []
    packet = world.open_packet(10_001, 30, strategy=strategy, tiers=tiers)
    meta = world.redis_meta(packet)
    assert {name.encode() for name in previous.META_FIELDS} <= meta.keys()
    if loader == "previous":
        # What it loads: the fields that it knows, and how many are left of each prize.
        known = [
            part
            for name, value in meta.items()
            if name != b"epoch"
            and (name.decode() in previous.META_FIELDS or name.startswith(b"tier_"))
            for part in (name, value)
        ]
        key = stock.meta_key(packet.id, 0)
        stock_client().delete(key)
        assert previous.script("load").call(stock_client(), [key], [1, *known]) == [1, 1]

    found = []
    for number in range(30):
        reply = ASKS[("previous", "current")[number % 2]](world.slot_of(packet, f"p{number}"))
        assert (reply[0], reply[2]) == (Reserved.NEW, number)
        found.append(splitting.Portion(reply[3], reply[4]))
    rules = stock.rules_of(packet)
    state = splitting.start(rules, rules.total_fen, rules.count, [n for _, n in tiers])
    reference = []
    for _ in range(30):
        portion, state = splitting.portion(rules, state, meta[b"key"].decode())
        reference.append(portion)
    assert found == reference
    assert [ask(world.slot_of(packet, "late"))[0] for ask in ASKS.values()] == [Reserved.EMPTY] * 2


def test_flags_of_one_stop_the_other() -> None:
    packet = world.open_packet(10_000, 10)
    key = [stock.meta_key(packet.id, 0)]
    assert previous.script("flags").call(stock_client(), key, ["", "state", "paused"]) == 1
    assert [ask(world.slot_of(packet, "a"))[0] for ask in ASKS.values()] == [Reserved.PAUSED] * 2
    stock.push_flags(stock_client(), packet.id)
    assert [ask(world.slot_of(packet, "a"))[0] for ask in ASKS.values()] == [0, 1]


def test_a_lower_epoch_replaces_a_higher_one_in_neither_version() -> None:
    packet = world.open_packet(10_000, 10)
    key = [stock.meta_key(packet.id, 0)]
    fields = ["state", "open"]
    for load, rest in (
        (previous.script("load"), fields),
        (lua.load("packets", "load"), ["keep", *fields]),
    ):
        assert load.call(stock_client(), key, [5, *rest])[1] == 5
        assert load.call(stock_client(), key, [4, *rest]) == [0, 5]


# --- Postgres -------------------------------------------------------------------------------------


def test_the_previous_version_commits_and_asks_as_it_always_did(app_dsn: str) -> None:
    packet = world.open_packet(10_000, 10)
    lane, slot = packet.lanes.get(), world.slot_of(packet, "ann")
    _, epoch, index, amount_fen, tier, *_ = ask_previous(slot)
    row = (lane.id, [slot.participant], [0], [epoch], [index], [amount_fen], [tier])
    with psycopg.connect(app_dsn, autocommit=True) as link:
        link.execute(previous.REMEMBER, ([slot.participant], [world.APP], ["ann"]))
        committed = link.execute(previous.COMMIT, row).fetchall()
        names = {"lane": lane.id, "packet": packet.id, "claims": [slot.claim_id]}
        truth = link.execute(previous.TRUTH, names).fetchall()
    [(verdict, claim_id, *portion, _, lane_epoch)] = committed
    assert (verdict, claim_id) == (Verdict.WON, slot.claim_id)
    assert (portion, lane_epoch) == ([epoch, index, amount_fen, tier], epoch)
    assert truth[0][6:] == (False, False, False, False, False, True, epoch, 9)
    # To this version it is the same claim.
    again = world.claim(packet, "ann")
    assert again.replayed and again.claim is not None
    assert again.claim.portion == Portion(epoch, index, amount_fen, tier)


def test_both_versions_settle_one_lane_in_turns() -> None:
    packet, lane = one_lane(40)
    assert packet.escrow_id is not None
    make_claims(lane, 20)
    make_claims(lane, 20, participants=[bytes(c.participant) for c in lane.claims.all()], serial=1)

    def settle_previous(first: int, last: int) -> None:
        names = {"lane": lane.id, "first": first, "last": last}
        names |= {"escrow": packet.escrow_id, "currency": packet.currency}
        count = last - first + 1
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(previous.SETTLE_WALLETS, names)
            cursor.execute(previous.SETTLE_MOVE, names)
            assert cursor.fetchone() == (count, 0, count, count * 100)
            cursor.execute(previous.SETTLE_CURSOR, [last, lane.id, first - 1])
            assert cursor.rowcount == 1

    settle_previous(1, 10)
    assert settle_lane(lane.id, limit=15).settled == 15
    settle_previous(26, 30)
    assert settle_lane(lane.id).settled == 10
    assert_all_paid_once()
    assert invariants_check().holds


def test_no_verdict_is_new_to_the_previous_version() -> None:
    """One that a process doesn't know is a 500 there: a new verdict comes a release later than
    the processes that understand it."""
    text = sql.load("packets", "commit_claims.sql")
    code = re.sub(r"--.*", "", text[text.index("v_verdicts text[]") :])
    given = set(re.findall(r"(?:v_verdicts\[i\] :=|THEN) '(\w+)'", code))
    assert {"won", "exists", "paused", "fenced"} <= given
    assert given <= previous.VERDICTS
    assert {str(verdict) for verdict in Verdict} >= previous.VERDICTS


def before() -> ProjectState:
    """The previous version's models."""
    loader = MigrationLoader(connection)
    state: ProjectState = loader.graph.make_state(
        nodes=previous.LEAVES, real_apps=loader.unmigrated_apps
    )
    return state


COLUMNS = """
SELECT table_name, column_name, is_nullable = 'YES',
       column_default IS NOT NULL OR is_identity = 'YES' OR is_generated = 'ALWAYS',
       character_maximum_length
  FROM information_schema.columns WHERE table_schema = 'public'
"""


def breaks(link: psycopg.Connection[Any]) -> list[str]:
    """Over what the previous version's queries and INSERTs would stumble in this database."""
    tables: dict[str, dict[str, tuple[Any, ...]]] = {}
    for table, column, *facts in link.execute(COLUMNS).fetchall():
        tables.setdefault(table, {})[column] = tuple(facts)
    found = []
    ours = {app for app, _ in previous.LEAVES}
    for model in before().apps.get_models():
        if model._meta.app_label not in ours or model._meta.proxy:
            continue
        there, known = tables.get(model._meta.db_table, {}), set()
        for field in model._meta.local_fields:
            name = f"{model._meta.db_table}.{field.column}"
            known.add(field.column)
            nullable, _, length = there.get(field.column, (None, None, None))
            if nullable is None:
                found.append(f"{name} is gone")
            elif field.null and not nullable:
                found.append(f"{name} may no longer be null")
            elif field.max_length and length and length < field.max_length:
                found.append(f"{name} got shorter")
        found += [
            f"{model._meta.db_table}.{column} is new, and who doesn't know it can't leave it out"
            for column, (nullable, filled, _) in there.items()
            if column not in known and not (nullable or filled)
        ]
    return found


def test_migrations_only_expand(owner_dsn: str) -> None:
    with psycopg.connect(owner_dsn) as link:
        assert breaks(link) == []


@pytest.mark.control
def test_a_contraction_is_seen(owner_dsn: str) -> None:
    with psycopg.connect(owner_dsn) as link:
        link.execute("ALTER TABLE packets_packet DROP COLUMN evenness CASCADE")
        link.execute("ALTER TABLE packets_packet ALTER COLUMN max_fen SET NOT NULL")
        link.execute("ALTER TABLE packets_packettarget ADD COLUMN more integer NOT NULL")
        link.execute("ALTER TABLE packets_participant ALTER COLUMN subject TYPE varchar(9)")
        found = breaks(link)
        link.rollback()
    assert sorted(found) == [
        "packets_packet.evenness is gone",
        "packets_packet.max_fen may no longer be null",
        "packets_packettarget.more is new, and who doesn't know it can't leave it out",
        "packets_participant.subject got shorter",
    ]


# --- the broker -----------------------------------------------------------------------------------


def test_each_worker_understands_what_the_other_version_sends() -> None:
    app.loader.import_default_modules()
    for name, arguments in previous.MESSAGES.items():
        inspect.signature(app.tasks[name].run).bind(*arguments)
    # Sweeps take nothing, and come again: a worker that doesn't know one may drop it.
    for name in SWEEPS:
        inspect.signature(app.tasks[name].run).bind()


def test_a_wake_up_is_understood_by_the_previous_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr(tasks.load_claimants, "delay", lambda *args: sent.append(args))
    claimants.wake(7)
    assert sent == [(7,)]
    inspect.signature(previous.load_claimants).bind(*sent[0])
