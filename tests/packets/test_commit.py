"""`laisee_commit_claims`: a verdict for every row, and what happens with a guard off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from engine.lib import ids, sql
from engine.lib.redis import stock as stock_client
from packets import services, stock
from packets.claiming import committer as committers
from packets.claiming.effects import Commit, Committed, Portion, Slot, Unavailable, Verdict
from packets.claiming.journal import Journal
from packets.models import Claim, Gate, Lane, Packet, Participant
from tests import world
from tests.guards import without_guard

pytestmark = pytest.mark.django_db(transaction=True)

SQL = sql.load("packets", "commit_claims.sql")


@pytest.fixture
def journal() -> Iterator[Journal]:
    made = Journal()
    yield made
    made.close()


@pytest.fixture
def guard_off(owner_dsn: str) -> Iterator[Callable[..., None]]:
    """`guard_off("fence")` installs the function without that guard until the test ends."""
    open_ones = []

    def off(*names: str) -> None:
        change = world.installed(owner_dsn, without_guard(SQL, *names), SQL)
        change.__enter__()
        open_ones.append(change)

    yield off
    for change in open_ones:
        change.__exit__(None, None, None)


def row(
    packet: Packet,
    name: str,
    index: int,
    amount_fen: int,
    *,
    epoch: int = 1,
    lane: int | None = None,
) -> Commit:
    """A reservation as a driver would commit it; by default in this person's home lane."""
    who = world.person(name)
    lanes = list(packet.lanes.order_by("number"))
    number = ids.home_lane(bytes(packet.home_key), who.participant, len(lanes))
    number = number if lane is None else lane
    slot = Slot(
        packet=packet.id,
        lane_id=lanes[number].id,
        lane_number=number,
        bucket=0,
        participant=who.participant,
        serial=0,
        claim_id=ids.claim_id(packet.id, who.participant, 0),
    )
    return Commit(slot, Portion(epoch, index, amount_fen, 0), world.APP, name)


def commit(journal: Journal, *rows: Commit) -> list[Verdict]:
    answers = journal.commit(rows[0].slot.lane_id, rows)
    assert all(isinstance(answer, Committed) for answer in answers)
    return [answer.verdict for answer in answers if isinstance(answer, Committed)]


def test_python_and_postgres_name_claims_and_lanes_alike(owner_dsn: str) -> None:
    packet = world.open_packet(10_000, 100, lane_count=7)
    with psycopg.connect(owner_dsn) as link:
        for i in range(200):
            who = world.person(f"user{i}").participant
            found = link.execute(
                "SELECT laisee_claim_id(%s, %s, %s), laisee_home_lane(%s, %s, 7)",
                (packet.id, who, i, bytes(packet.home_key), who),
            ).fetchone()
            expected = (
                ids.claim_id(packet.id, who, i),
                ids.home_lane(bytes(packet.home_key), who, 7),
            )
            assert found == expected


def test_a_batch_gets_a_verdict_for_every_row(journal: Journal) -> None:
    """Wins, a double tap, a taken index, an old epoch, too much: no row harms another."""
    packet = world.open_packet(1_000, 10)
    assert commit(journal, row(packet, "zoe", 9, 100)) == ["won"]

    verdicts = commit(
        journal,
        row(packet, "alice", 0, 100),
        row(packet, "bob", 1, 150),
        row(packet, "alice", 0, 100),
        row(packet, "carol", 1, 150),
        row(packet, "dave", 2, 50, epoch=7),
        row(packet, "erin", 3, 900),
        row(packet, "zoe", 4, 77),
    )

    assert verdicts == ["won", "won", "exists", "conflict", "fenced", "conflict", "exists"]
    lane = Lane.objects.get()
    assert (lane.claimed_fen, lane.claimed_count) == (350, 3)
    assert sorted(Claim.objects.values_list("position", "amount_fen")) == [
        (1, 100),
        (2, 100),
        (3, 150),
    ]


def test_an_existing_claim_is_returned_as_it_stands(journal: Journal) -> None:
    packet = world.open_packet(1_000, 10)
    commit(journal, row(packet, "alice", 0, 100))
    services.packet_close(packet_id=packet.id, actor="test")
    (answer,) = journal.commit(packet.lanes.get().id, [row(packet, "alice", 5, 300, epoch=9)])
    assert isinstance(answer, Committed) and answer.verdict is Verdict.EXISTS
    assert answer.claimed is not None and answer.claimed.portion == Portion(1, 0, 100, 0)


class TestGuards:
    def test_the_last_portion_must_take_the_rest(self, journal: Journal) -> None:
        packet = world.open_packet(1_000, 2)
        assert commit(journal, row(packet, "alice", 0, 400)) == ["won"]
        assert commit(journal, row(packet, "bob", 1, 500)) == ["conflict"]
        assert commit(journal, row(packet, "bob", 1, 600)) == ["won"]
        assert commit(journal, row(packet, "carol", 2, 1)) == ["conflict"]

    def test_what_is_left_must_still_be_possible(self, journal: Journal) -> None:
        packet = world.open_packet(1_000, 10, min_fen=50, max_fen=200)
        assert commit(journal, row(packet, "alice", 0, 49)) == ["conflict"]
        assert commit(journal, row(packet, "alice", 0, 201)) == ["conflict"]
        assert commit(journal, row(packet, "alice", 0, 200)) == ["won"]

    def test_control_without_the_total_one_bad_row_fails_the_batch(
        self, journal: Journal, guard_off: Callable[..., None]
    ) -> None:
        guard_off("total")
        packet = world.open_packet(1_000, 10)
        # The CHECK still holds the cap, but it takes the innocent row along (5b) ...
        with pytest.raises(psycopg.errors.CheckViolation):
            journal._commit(
                packet.lanes.get().id,
                [row(packet, "alice", 0, 100), row(packet, "erin", 1, 950)],
            )
        assert not Claim.objects.exists()
        # ... until the driver splits the batch.
        answers = journal.commit(
            packet.lanes.get().id, [row(packet, "alice", 0, 100), row(packet, "erin", 1, 950)]
        )
        assert isinstance(answers[0], Committed) and isinstance(answers[1], Unavailable)

    def test_control_without_the_fence_an_old_epoch_commits(
        self, journal: Journal, guard_off: Callable[..., None]
    ) -> None:
        packet = world.open_packet(1_000, 10)
        assert commit(journal, row(packet, "alice", 0, 100, epoch=0)) == ["fenced"]
        guard_off("fence")
        assert commit(journal, row(packet, "alice", 0, 100, epoch=0)) == ["won"]

    def test_control_without_the_index_one_portion_goes_to_two(
        self, journal: Journal, guard_off: Callable[..., None], owner_dsn: str
    ) -> None:
        packet = world.open_packet(1_000, 10)
        commit(journal, row(packet, "alice", 0, 100))
        assert commit(journal, row(packet, "bob", 0, 100)) == ["conflict"]
        guard_off("index")
        with pytest.raises(psycopg.errors.UniqueViolation):  # the key is the second wall
            journal.commit(packet.lanes.get().id, [row(packet, "bob", 0, 100)])
        with psycopg.connect(owner_dsn, autocommit=True) as owner:
            owner.execute("ALTER TABLE packets_claim DROP CONSTRAINT claim_index_once")
            try:
                assert commit(journal, row(packet, "bob", 0, 100)) == ["won"]
                owner.execute("ALTER TABLE packets_claim DISABLE TRIGGER USER")
                owner.execute("DELETE FROM packets_claim")
                owner.execute("ALTER TABLE packets_claim ENABLE TRIGGER USER")
            finally:
                owner.execute(
                    "ALTER TABLE packets_claim ADD CONSTRAINT claim_index_once"
                    " UNIQUE (lane_id, epoch, index)"
                )

    def test_only_the_home_lane_and_the_control(
        self, journal: Journal, guard_off: Callable[..., None]
    ) -> None:
        packet = world.open_packet(1_000, 10, lane_count=2)
        home = row(packet, "alice", 0, 10).slot.lane_number
        away = row(packet, "alice", 0, 10, lane=1 - home)
        assert commit(journal, away) == ["misplaced"]
        guard_off("home")
        assert commit(journal, away) == ["won"]

    def test_kill_that_redis_forgot_and_the_control(
        self, journal: Journal, guard_off: Callable[..., None]
    ) -> None:
        """Staff press kill; Redis comes back from an old copy with its flags open (8)."""
        packet = world.open_packet(1_000, 10)
        services.gate_set(gate_id=packet.gate_id, state="paused", actor="test")
        stock.set_flags(stock_client(), packet.id, 0, None, {"state": "open"})
        assert world.claim(packet, "alice").result == "paused"
        assert world.redis_meta(packet)[b"state"] == b"paused"  # mended on the way
        assert commit(journal, row(packet, "bob", 1, 100)) == ["paused"]
        guard_off("gate")
        assert commit(journal, row(packet, "bob", 1, 100)) == ["won"]

    def test_the_gate_of_all_is_read_too(self, journal: Journal) -> None:
        packet = world.open_packet(1_000, 10)
        Gate.objects.filter(key=Gate.ALL).update(state="paused")
        assert commit(journal, row(packet, "bob", 1, 100)) == ["paused"]


def hold_lane(dsn: str, lane_id: int) -> psycopg.Connection:
    """Somebody's open transaction holds the lane's row."""
    link = psycopg.connect(dsn)
    link.execute("SELECT 1 FROM packets_lane WHERE id = %s FOR UPDATE", (lane_id,))
    return link


class TestWaiting:
    """6: a statement sees what was true before it waited; 5: whoever waits stops no other."""

    def both_doors_send_alice(self, packet: Packet, superuser_dsn: str) -> list[Verdict]:
        lane_id = packet.lanes.get().id
        holder = hold_lane(superuser_dsn, lane_id)
        verdicts: list[Verdict] = []

        def door() -> None:
            journal = Journal()
            with journal._open() as link:
                link.execute("SET lock_timeout = '10s'")
                verdicts.extend(commit(journal, row(packet, "alice", 0, 100)))
            journal.close()

        doors = [threading.Thread(target=door) for _ in range(2)]
        for thread in doors:
            thread.start()
        _wait_for_waiters(superuser_dsn, 2)
        holder.rollback()
        holder.close()
        for thread in doors:
            thread.join(10)
        return sorted(verdicts)

    def test_both_doors_send_alice(self, superuser_dsn: str) -> None:
        packet = world.open_packet(1_000, 10)
        assert self.both_doors_send_alice(packet, superuser_dsn) == ["exists", "won"]

    def test_control_one_snapshot_calls_a_double_tap_a_conflict(
        self, superuser_dsn: str, guard_off: Callable[..., None]
    ) -> None:
        guard_off("reread")
        packet = world.open_packet(1_000, 10)
        assert self.both_doors_send_alice(packet, superuser_dsn) == ["conflict", "won"]

    def test_a_repeat_is_answered_while_the_lane_is_held(
        self, owner_dsn: str, journal: Journal
    ) -> None:
        packet = world.open_packet(1_000, 10)
        commit(journal, row(packet, "alice", 0, 100))
        holder = hold_lane(owner_dsn, packet.lanes.get().id)
        assert commit(journal, row(packet, "alice", 0, 100)) == ["exists"]
        assert (
            journal.commit(packet.lanes.get().id, [row(packet, "bob", 1, 100)])[0].__class__
            is Unavailable
        )
        holder.close()

    def test_one_locked_lane_leaves_the_other_alone(self, owner_dsn: str) -> None:
        packet = world.open_packet(100_000, 1_000, lane_count=2)
        held, free = packet.lanes.order_by("number")
        names = [f"user{i}" for i in range(400)]
        at_home = [n for n in names if row(packet, n, 0, 1).slot.lane_id == free.id]
        stuck = [n for n in names if row(packet, n, 0, 1).slot.lane_id == held.id][:8]
        holder = hold_lane(owner_dsn, held.id)
        group = committers.GroupCommitter()
        stop = threading.Event()

        def keep_asking(name: str) -> None:
            while not stop.is_set():
                try:
                    group.commit(row(packet, name, 0, 1))
                except Unavailable:
                    continue

        askers = [threading.Thread(target=keep_asking, args=(name,)) for name in stuck]
        for asker in askers:
            asker.start()
        try:
            started = time.monotonic()
            outcomes = [
                group.commit(row(packet, name, index, 1)).verdict
                for index, name in enumerate(at_home[:100])
            ]
            took_s = time.monotonic() - started
        finally:
            stop.set()
            holder.rollback()
            holder.close()
            for asker in askers:
                asker.join(10)
            group.close()
        # With the batches mixed, each of these hundred would have waited for a lock timeout.
        assert outcomes == ["won"] * 100
        assert took_s < 100 * 0.2 / 2

    def test_a_settlement_that_holds_alices_money_does_not_stop_bob(
        self, owner_dsn: str, journal: Journal
    ) -> None:
        packet = world.open_packet(1_000, 10)
        commit(journal, row(packet, "alice", 0, 100))
        with psycopg.connect(owner_dsn) as settlement:
            settlement.execute("SELECT 1 FROM packets_lanecursor FOR UPDATE")
            settlement.execute("SELECT 1 FROM packets_account ORDER BY id FOR NO KEY UPDATE")
            verdicts = commit(journal, row(packet, "alice", 0, 100), row(packet, "bob", 1, 100))
            assert verdicts == ["exists", "won"]
            settlement.rollback()


def _wait_for_waiters(dsn: str, count: int) -> None:
    until = time.monotonic() + 10
    with psycopg.connect(dsn, autocommit=True) as link:
        while time.monotonic() < until:
            found = link.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND application_name = 'laisee-commit'"
            ).fetchone()
            if found and found[0] >= count:
                return
            time.sleep(0.01)
    pytest.fail("nobody waits for the lane")


class TestBatches:
    @pytest.mark.parametrize("poison", ["\0", "\ud800"])
    def test_a_defective_row_stands_alone(self, journal: Journal, poison: str) -> None:
        packet = world.open_packet(1_000, 10)
        rows = [
            row(packet, name, index, 10) for index, name in enumerate(["alice", "bob", "carol"])
        ]
        bad = Commit(rows[1].slot, rows[1].portion, world.APP, f"bob{poison}")
        answers = journal.commit(rows[0].slot.lane_id, [rows[0], bad, rows[2]])
        assert [type(answer).__name__ for answer in answers] == [
            "Committed",
            "Unavailable",
            "Committed",
        ]
        assert Claim.objects.count() == 2

    def test_an_unknown_outcome_is_asked_for_again(self, journal: Journal) -> None:
        """The connection dies after the commit and before the answer."""
        packet = world.open_packet(1_000, 10)
        real = journal._commit
        lost = []

        def lossy(lane_id: int, rows: list[Commit]) -> list[Committed]:
            answers = real(lane_id, rows)
            if not lost:
                lost.append(answers)
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            return answers

        journal._commit = lossy  # type: ignore[method-assign]
        (answer,) = journal.commit(packet.lanes.get().id, [row(packet, "alice", 0, 100)])
        assert isinstance(answer, Committed) and answer.verdict is Verdict.EXISTS
        assert answer.claimed == lost[0][0].claimed
        assert Claim.objects.count() == 1

    def test_a_killed_backend_costs_no_claim(self, journal: Journal, superuser_dsn: str) -> None:
        packet = world.open_packet(1_000, 10)
        commit(journal, row(packet, "alice", 0, 100))
        with psycopg.connect(superuser_dsn, autocommit=True) as link:
            link.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'laisee-commit'"
            )
        assert commit(journal, row(packet, "bob", 1, 100)) == ["won"]

    def test_threads_share_their_commits(self) -> None:
        """11: 64 threads on one lane make far fewer commits than claims."""
        packet = world.open_packet(100_000, 1_000)
        sizes: list[int] = []

        class Counting(Journal):
            def commit(self, lane_id, rows):  # type: ignore[no-untyped-def]
                sizes.append(len(rows))
                return super().commit(lane_id, rows)

        group = committers.GroupCommitter(new_journal=Counting)
        answers = world.together(
            [lambda i=i: group.commit(row(packet, f"user{i}", i, 10)) for i in range(512)],
            threads=64,
        )
        group.close()
        assert [a.verdict for a in answers] == ["won"] * 512  # type: ignore[union-attr]
        assert sum(sizes) == 512
        assert len(sizes) < 512 / 4

    def test_people_are_known_once(self, journal: Journal) -> None:
        packet = world.open_packet(1_000, 10)
        commit(journal, row(packet, "alice", 0, 100), row(packet, "bob", 1, 100))
        commit(journal, row(packet, "alice", 0, 100))
        assert sorted(Participant.objects.values_list("subject", flat=True)) == ["alice", "bob"]


# --- look-ups by key ------------------------------------------------------------------------------


def read_through(owner_dsn: str) -> int:
    """How often ten small commits read the whole table of claims, where that looks cheap."""
    packet = world.open_packet(100 * 60, 60, strategy="fixed")
    first_ones = Journal()
    commit(first_ones, *(row(packet, f"p{index}", index, 100) for index in range(20)))
    first_ones.close()
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        owner.execute("ANALYZE packets_claim")
    journal = Journal()
    try:
        # To the planner reading a table through is free here, however many pages it has.
        for cost in ("seq_page_cost", "cpu_tuple_cost", "cpu_operator_cost"):
            journal._open().execute(f"SET {cost} = 0")
        before = scans(journal)
        for first in range(20, 60, 4):
            rows = [row(packet, f"p{index}", index, 100) for index in range(first, first + 4)]
            assert commit(journal, *rows) == [Verdict.WON] * 4
        return scans(journal) - before
    finally:
        journal.close()


def scans(journal: Journal) -> int:
    link = journal._open()
    link.execute("SELECT pg_stat_force_next_flush()")
    found = link.execute(
        "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'packets_claim'"
    ).fetchone()
    assert found is not None and isinstance(found[0], int)
    return found[0]


def test_a_commit_never_reads_through_the_claims(owner_dsn: str) -> None:
    assert read_through(owner_dsn) == 0


@pytest.mark.control
def test_control_without_by_key_the_planner_reads_the_table_through(
    owner_dsn: str, guard_off: Callable[..., None]
) -> None:
    guard_off("by_key")
    assert read_through(owner_dsn) >= 10
