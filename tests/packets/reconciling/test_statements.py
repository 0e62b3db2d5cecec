"""Statements come in whole or not at all, once, from files as people download them or by asking."""

from __future__ import annotations

import datetime as dt
import io
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.core.management import call_command

from engine.lib.errors import ServiceError
from packets import tasks
from packets.models import Difference, ProviderAccount, Statement, StatementLine
from packets.providers.base import CredentialsMissing, ProviderUnavailable
from packets.reconciling import files, matching, statements
from packets.reconciling.files import StatementUnreadable
from tests import world
from tests.packets.reconciling.stage import (
    DAY,
    TODAY,
    ZONE,
    Book,
    account,
    as_csv,
    compared,
    line,
    noon,
    payout,
)

database = pytest.mark.django_db(transaction=True)
SHANGHAI = "Asia/Shanghai"

# --- files ----------------------------------------------------------------------------------------

ALIPAY = """#支付宝业务明细查询
#账号：[20880000]
,,,
商户订单号\t,支付宝交易号\t,金额（元）,状态,发生时间
A1\t,2026112022001,"-1,234.50",交易成功,2026-11-20 08:00:00
A2\t,2026112022002,-0.1,失败,2026/11/20 09:00:00
合计,2笔,,
"""
WECHAT = """商家转账单号,微信支付业务单号,转账金额(元),转账状态,完成时间
`W1,`1030,`12.00,`转账成功,`2026-11-20T08:00:00+08:00
"""


def read(raw: bytes) -> list[tuple[int, str, str, int, str, str]]:
    file = io.BytesIO(raw)
    found = files.examine(file)
    return [
        (one.line_no, one.out_number, one.provider_ref, one.amount_fen, one.state.value,
         one.at.astimezone(ZONE).isoformat())
        for one in files.lines_of(file, found.encoding, SHANGHAI)
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk"])
def test_a_file_in_the_encodings_of_the_portals(encoding: str) -> None:
    assert read(ALIPAY.encode(encoding)) == [
        (5, "A1", "2026112022001", 123_450, "paid", "2026-11-20T08:00:00+08:00"),
        (6, "A2", "2026112022002", 10, "failed", "2026-11-20T09:00:00+08:00"),
    ]
    assert read(WECHAT.replace("\n", "\r\n").encode(encoding)) == [
        (2, "W1", "1030", 1_200, "paid", "2026-11-20T08:00:00+08:00")
    ]


HEAD = "out_number,amount_fen,state,at\n"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("A,100,paid", "cells"),
        (",100,paid,2026-11-20", "number"),
        (f"{'A' * 65},100,paid,2026-11-20", "number"),
        ("A\x07,100,paid,2026-11-20", "number"),
        ("A,0,paid,2026-11-20", "amount"),
        ("A,-1,paid,2026-11-20", "amount"),
        ("A,0.1,paid,2026-11-20", "amount"),
        (f"A,{10**18},paid,2026-11-20", "amount"),
        (f"A,{2**53},paid,2026-11-20", "amount"),
        ("A,１00x,paid,2026-11-20", "amount"),
        ("A,100,maybe,2026-11-20", "state"),
        ("A,100,paid,yesterday", "time"),
        ("A,100,paid,0001-01-01T00:00:00+10:00", "time"),
        ('A,100,"paid,2026-11-20', "csv"),
        ('A,100,"paid"x,2026-11-20', "csv"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(row: str, code: str) -> None:
    with pytest.raises(StatementUnreadable) as refusal:
        read(f"{HEAD}B,1,paid,2026-11-20\n{row}\n".encode())
    assert [(one.line_no, one.code) for one in refusal.value.faults] == [(3, code)]
    assert str(files.FAULTS[code]) in refusal.value.message


def test_all_wrong_rows_are_named_up_to_a_bound() -> None:
    with pytest.raises(StatementUnreadable) as refusal:
        read((HEAD + "A,0,paid,2026-11-20\n" * 30).encode())
    assert [one.line_no for one in refusal.value.faults] == list(range(2, 22))


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "empty"),
        (b"\xff\xfe\x00\x00", "encoding"),
        ("out_number".encode("utf-16"), "encoding"),
        (b"a,b\n1,2\n", "no_header"),
        (b"remark\n" * 60 + HEAD.encode(), "no_header"),
    ],
)
def test_a_file_that_is_no_statement(raw: bytes, code: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        read(raw)
    assert refusal.value.code == code


def test_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    row = "A,1,paid,2026-11-20\n"
    monkeypatch.setattr(files, "MAX_LINES", 3)
    assert len(read((HEAD + row * 3).encode())) == 3
    with pytest.raises(ServiceError, match="At most 3 lines"):
        read((HEAD + row * 4).encode())
    monkeypatch.setattr(files, "MAX_BYTES", 20)
    with pytest.raises(ServiceError, match="At most 0 MB"):
        read((HEAD + row).encode())
    with pytest.raises(StatementUnreadable):  # a row without an end is cut, not kept
        list(files.lines_of(io.BytesIO(HEAD.encode() + b'"' + b"x" * 200_000), "utf-8", SHANGHAI))


# --- taken in -------------------------------------------------------------------------------------


def take(rail: ProviderAccount, raw: bytes, day: dt.date = DAY) -> Statement:
    return statements.statement_upload(
        account=rail, day=day, file=io.BytesIO(raw), filename="day.csv", actor="staff:fin"
    )


@database
def test_nothing_is_kept_of_a_bad_file(monkeypatch: pytest.MonkeyPatch) -> None:
    rail = account()
    good = as_csv(*[line(f"N{number}") for number in range(50)])
    for raw in (good + b"N50,ref,0,paid,2026-11-20\r\n", b"", b"a,b\n"):
        with pytest.raises(ServiceError):
            take(rail, raw)
    with pytest.raises(ServiceError) as refusal:
        take(rail, as_csv(line("A", at=noon(DAY, 9))), day=DAY - dt.timedelta(days=1))
    assert refusal.value.code == "other_day" and str(DAY) in refusal.value.message
    assert not Statement.objects.exists() and not StatementLine.objects.exists()


@database
def test_a_day_of_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "ROWS_A_CHUNK", 7)
    monkeypatch.setattr(statements, "SPOOL_IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(matching, "LINES_A_RANGE", 4)
    rail = account()
    made = compared(rail, *[line(f"N{number}", number + 1) for number in range(20)])
    rows = StatementLine.objects.order_by("line_no").values_list("line_no", "out_number")
    assert list(rows) == [(number + 2, f"N{number}") for number in range(20)]
    assert (made.lines, made.done_lines, made.sum_fen) == (20, 20, sum(range(1, 21)))
    assert Difference.objects.filter(kind="missing_here").count() == 20


# --- asking ---------------------------------------------------------------------------------------


def fetch(rail: ProviderAccount, book: Any, day: dt.date = DAY) -> Statement:
    return statements.statement_fetch(account=rail, day=day, provider_of=lambda _: book)


@database
@pytest.mark.parametrize(
    "problem", [ProviderUnavailable("closed for the night"), CredentialsMissing("key", "is empty")]
)
def test_a_statement_that_could_not_be_had_is_asked_for_again_later(problem: Exception) -> None:
    rail = account()
    payout(rail)
    when = statements.statements_due()[0]
    made = fetch(rail, Book({when[1]: problem}), when[1])
    assert (made.state, made.fault, made.lease_until) == ("failed", str(problem), None)
    assert when not in statements.statements_due()
    Statement.objects.update(created_at=noon(DAY))
    assert when in statements.statements_due()


@database
def test_the_daily_job_fetches_what_is_due_and_compares_it() -> None:
    # No day becomes ready while this runs, whatever the hour.
    rail = account(statement_after=(dt.datetime.now(ZONE) + dt.timedelta(hours=12)).time())
    quiet = account("quiet", statement_after=None)  # its statements come by upload alone
    account("new")  # nobody has been paid through it
    first, last = payout(rail), payout(rail, ended=noon(TODAY - dt.timedelta(days=1)))
    payout(quiet)
    due = [day for account_id, day in statements.statements_due() if account_id == rail.pk]
    assert due[0] >= TODAY - dt.timedelta(days=2) and due[-1] == DAY
    assert due == sorted(due, reverse=True) and len(due) in (2, 3)

    book = Book({DAY: [line(first), line("STRANGE")], due[0]: [line(last)]})
    assert statements.statements_fetch_due(for_s=60, provider_of=lambda _: book) == len(due)  # type: ignore[arg-type,return-value]
    assert matching.statements_match_due(for_s=60) == len(due)
    assert statements.statements_due() == [] and book.asked == len(due)
    assert [one.out_number for one in Difference.objects.filter(kind="missing_here")] == ["STRANGE"]
    assert statements.statements_fetch_due(for_s=60, provider_of=lambda _: book) == 0  # type: ignore[arg-type,return-value]


@database
def test_a_day_is_due_when_its_statement_is_ready_there() -> None:
    rail, ready = account(), dt.datetime.now(ZONE)
    yesterday = ready.date() - dt.timedelta(days=1)
    payout(rail, ended=noon(yesterday), sent=noon(yesterday))
    rail.statement_after = dt.time(0, 0)
    rail.save()
    assert statements.statements_due() == [(rail.pk, yesterday)]
    if ready.time() < dt.time(23, 59):
        rail.statement_after = dt.time(23, 59, 59)
        rail.save()
        assert statements.statements_due() == []


@database
def test_the_sweeps_have_nothing_to_do_in_an_empty_house() -> None:
    tasks.reconcile_sweep()
    tasks.differences_sweep()
    tasks.three_way_sweep()
    assert not Statement.objects.exists()


# --- two at once ----------------------------------------------------------------------------------


class MeetingBook(Book):
    """A provider whose answer waits until the other reader has come too, or was turned away."""

    def __init__(self, said: dict[dt.date, Any]) -> None:
        super().__init__(said)
        self.other_is_done = threading.Event()
        self.readers = 0
        self.both_are_here = threading.Event()

    def statement(self, day: dt.date) -> Iterator[Any]:
        self.readers += 1
        if self.readers == 2:
            self.both_are_here.set()
        while not (self.both_are_here.is_set() or self.other_is_done.wait(0.02)):
            pass
        yield from super().statement(day)


def fetch_twice(rail: ProviderAccount) -> list[Any]:
    book = MeetingBook({DAY: [line("STRANGE"), line("STRANGER")]})

    def run() -> Any:
        try:
            return fetch(rail, book).state
        except statements.AlreadyReading:
            return "turned away"
        finally:
            book.other_is_done.set()

    results = world.together([run, run], threads=2)
    world.together([lambda: matching.statements_match_due(for_s=60)] * 4, threads=4)
    return sorted(map(str, results))


@database
def test_two_readers_of_one_day() -> None:
    assert fetch_twice(account()) == ["received", "turned away"]
    assert Statement.objects.get().state == "matched"
    assert StatementLine.objects.count() == 2 and Difference.objects.count() == 2


@database
@pytest.mark.control
def test_without_the_unique_day_both_read_it(owner_dsn: str) -> None:
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        [made] = owner.execute(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'statement_one_reader'"
        ).fetchone() or [""]
        owner.execute("DROP INDEX statement_one_reader")
        try:
            results = fetch_twice(account())
            assert Statement.objects.count() == 2 and StatementLine.objects.count() == 4
            assert "turned away" not in results
        finally:
            Statement.objects.filter(state__in=Statement.UNDER_WAY).update(state="failed")
            owner.execute(made)  # type: ignore[call-overload]


@database
def test_a_reader_that_died_leaves_its_day_to_others() -> None:
    rail = account()
    payout(rail)
    began = noon(DAY + dt.timedelta(days=1))
    dead = Statement.objects.create(
        account=rail, day=DAY, source="fetched", lease_until=began, created_at=began
    )
    StatementLine.objects.create(
        statement=dead, line_no=1, out_number="HALF", amount_fen=5, state="paid", at=noon()
    )
    assert (rail.pk, DAY) in statements.statements_due()
    made = compared(rail, line("WHOLE", 5))
    dead.refresh_from_db()
    assert (dead.state, made.state) == ("failed", "matched")
    assert [one.out_number for one in Difference.objects.filter(kind="missing_here")] == ["WHOLE"]


@database
def test_a_reader_whose_lease_is_over_keeps_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "LEASE_S", 0)
    rail = account()
    with pytest.raises(statements.AlreadyReading):
        take(rail, as_csv(line("A")))
    assert not StatementLine.objects.exists()


# --- by hand --------------------------------------------------------------------------------------


@database
def test_the_command_reads_a_file_prints_and_exits(tmp_path: Any) -> None:
    rail = account()
    a = payout(rail)
    good, bad, different = (tmp_path / name for name in ("good.csv", "bad.csv", "different.csv"))
    good.write_bytes(as_csv(line(a)))
    bad.write_bytes(as_csv(line(a)) + b"A,ref,0,paid,2026-11-20\r\nB,ref,1,no,2026-11-20\r\n")
    different.write_bytes(as_csv(line(a, 999)))

    def run(path: Any) -> tuple[Any, str, str]:
        out, err, code = io.StringIO(), io.StringIO(), 0
        try:
            call_command("reconcile", account="rail", day=DAY, file=path, stdout=out, stderr=err)
        except SystemExit as stop:
            code = stop.code  # type: ignore[assignment]
        return code, out.getvalue(), err.getvalue()

    assert run(bad) == (
        2,
        "",
        "row 3: the amount is not a positive amount of money\n"
        "row 4: the outcome is neither paid, failed nor returned\n",
    )
    assert run(good)[:2] == (0, f"rail {DAY}: 1 lines, 1000 fen paid, 0 open differences\n")
    code, out, _err = run(different)
    assert code == 1 and out.splitlines() == [
        f"rail {DAY}: 1 lines, 999 fen paid, 1 open differences",
        f"amount\t{a.number}\there 1000 paid\tthere 999 paid",
    ]
