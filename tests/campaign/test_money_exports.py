"""Files for finance: which rows of which days, as whom they name, and that the log knows."""

from __future__ import annotations

import csv
import datetime as dt
import io
import stat
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models.functions import Now

from campaign import money_exports
from campaign.money_exports import Period, money_export
from engine.lib import clock
from engine.lib.errors import ServiceError
from engine.models import AuditEvent
from engine.staff.reauth import SESSION_KEY
from packets import ledger, settlement
from packets.models import Account, Difference, Payout, Transfer
from packets.payouts.numbers import payee_encrypt
from packets.reconciling.differences import difference_resolve
from tests import world
from tests.admin import desk
from tests.campaign import stage
from tests.packets.reconciling.stage import DAY, ZONE, account, compared, line, noon, payout

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False


PAGE = "/admin/campaign/campaign/money-export/"
TODAY = clock.now().astimezone(ZONE).date()
NOW = Period(TODAY - dt.timedelta(days=1), TODAY)  # also where midnight passes meanwhile


def rows(raw: bytes) -> list[dict[str, str]]:
    assert raw.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"))))


def taken(what: str, period: Period = NOW, whole: bool = False) -> list[dict[str, str]]:
    return rows(b"".join(money_export(what=what, period=period, whole=whole, actor="test")))


def test_transfers_say_who_got_what_from_which_campaign() -> None:
    campaign = stage.live()
    app = campaign.client_apps.get()
    world.claim(stage.first_packet(campaign), world.person("=alice", app=app.pk))
    settlement.settle_due()

    found = taken("transfers")
    assert [one["transfer"] for one in found] == [
        str(pk) for pk in Transfer.objects.order_by("id").values_list("pk", flat=True)
    ]
    [settled] = [one for one in found if one["kind"] == "settle"]
    made = Transfer.objects.get(kind="settle")
    local = made.created_at.astimezone(ZONE)
    assert settled == {
        "transfer": str(made.pk),
        "reference": made.reference,
        "kind": "settle",
        "income_kind": "偶然所得",
        "amount_fen": str(made.amount_fen),
        "currency": "CNY",
        "from_kind": "escrow",
        "from_owner": made.debit_account.owner,
        "to_kind": "wallet",
        "to_owner": made.credit_account.owner,
        "client_app": app.slug,
        "user": "'=alice",
        "campaign": campaign.slug,
        "packet": stage.first_packet(campaign).public_id,
        "at Asia/Shanghai": f"{local:%Y-%m-%d %H:%M:%S}",
        "at_utc": f"{made.created_at:%Y-%m-%dT%H:%M:%SZ}",
    }
    assert {one["campaign"] for one in found} == {campaign.slug}
    assert {one["income_kind"] for one in found if one["kind"] != "settle"} == {""}


@pytest.mark.parametrize("chunk", [1, 3, 1_000])
def test_a_period_holds_exactly_its_days(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(money_exports, "ROWS_A_CHUNK", chunk)
    giver = ledger.external_account()
    taker = ledger.account_get_or_create(kind=Account.Kind.CAMPAIGN, owner="x")
    middle = Period(DAY, DAY)
    moments = [
        noon(DAY - dt.timedelta(days=1), 23, 59), noon(DAY, 0), noon(DAY, 23, 59),
        noon(DAY + dt.timedelta(days=1), 0),
    ]  # fmt: skip
    for number, at in enumerate(sorted(moments * 3)):
        Transfer.objects.create(
            reference=f"made:{number}", kind="fund", amount_fen=1, created_at=at,
            debit_account=giver, credit_account=taker,
        )  # fmt: skip
    # Two transactions that overlapped: the later id has the earlier time.
    Transfer.objects.create(
        reference="made:late", kind="fund", amount_fen=1, debit_account=giver,
        credit_account=taker, created_at=noon(DAY, 23, 59, ),
    )  # fmt: skip
    references = [one["reference"] for one in taken("transfers", middle)]
    assert references == [f"made:{number}" for number in range(3, 9)] + ["made:late"]


def people() -> tuple[Payout, Payout, Payout]:
    """One paid, one failed, one on its way, of three days."""
    rail = account()
    numbers = (
        payout(rail, 1_000, ended=noon(DAY, 1), sent=noon(DAY - dt.timedelta(days=1), 23)),
        payout(rail, 2_000, "failed", ended=noon(DAY, 2), failure_code="NO_SUCH_ACCOUNT"),
        payout(rail, 3_000, "unknown", sent=noon(DAY, 3), manual_reason="too_long",
               manual_at=Now(), next_attempt_at=None),
    )  # fmt: skip
    return tuple(number.payout for number in numbers)  # type: ignore[return-value]


def test_payouts_are_masked_unless_the_whole_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(money_exports, "ROWS_A_CHUNK", 1)
    rail = account()
    number = payout(
        rail, 1_000, ended=noon(DAY, 1), sent=noon(DAY - dt.timedelta(days=1), 23),
        payee_encrypted=payee_encrypt("13800001234", "张小明"), provider_ref="+1030",
    )  # fmt: skip
    [paid] = taken("paid", Period(DAY, DAY))
    assert (paid["payee_account"], paid["payee_name"]) == ("138****0000", "张**")
    [paid] = taken("paid", Period(DAY, DAY), whole=True)
    assert paid == {
        "payout": number.payout.pk.hex,
        "number": number.number,
        "provider_account": "rail",
        "provider": "sandbox",
        "provider_reference": "'+1030",
        "state": "paid",
        "client_app": "",
        "user": paid["user"],
        "payee_account": "13800001234",
        "payee_name": "张小明",
        "amount_fen": "1000",
        "currency": "CNY",
        "income_kind": "偶然所得",
        "campaign": "",
        "asked_at Asia/Shanghai": f"{DAY - dt.timedelta(days=1)} 23:00:00",
        "asked_at_utc": f"{DAY - dt.timedelta(days=1)}T15:00:00Z",
        "ended_at Asia/Shanghai": f"{DAY} 01:00:00",
        "ended_at_utc": f"{DAY - dt.timedelta(days=1)}T17:00:00Z",
        "failure": "",
    }
    assert paid["user"].startswith("person-")


@pytest.mark.parametrize("chunk", [1, 2_000])
def test_payouts_by_when_they_were_asked_for_and_by_when_they_were_paid(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(money_exports, "ROWS_A_CHUNK", chunk)
    paid, failed, under_way = people()

    def ids(what: str, *days: int) -> list[str]:
        period = Period(*(DAY + dt.timedelta(days=number) for number in days))
        return [one["payout"] for one in taken(what, period)]

    assert ids("payouts", -1, -1) == [paid.pk.hex]
    assert ids("payouts", 0, 0) == [failed.pk.hex, under_way.pk.hex]
    assert ids("payouts", -1, 1) == [paid.pk.hex, failed.pk.hex, under_way.pk.hex]
    assert ids("paid", -1, -1) == [] and ids("paid", 0, 5) == [paid.pk.hex]
    # A payee that can't be read doesn't keep the others from the file.
    assert {one["payee_name"] for one in taken("payouts", Period(DAY, DAY))} == {"(unreadable)"}


def test_differences_with_what_was_said_about_them() -> None:
    rail = account()
    compared(rail, line("STRANGE", 5), line("=OTHER", 6))
    one = Difference.objects.get(out_number="STRANGE")
    difference_resolve(
        difference_id=one.pk, resolution="not_ours", reason="the shop's till", actor="staff:fin"
    )
    first, second = taken("differences", Period(DAY, DAY))
    by_number = {row["number"]: row for row in (first, second)}
    assert by_number["STRANGE"]["resolution"] == "not_ours"
    assert by_number["STRANGE"]["reason"] == "the shop's till"
    other = by_number["'=OTHER"]
    assert (other["class"], other["amount_here_fen"], other["amount_there_fen"]) == (
        "missing_here", "", "6",
    )  # fmt: skip
    assert (other["state"], other["resolved_at_utc"]) == ("open", "")
    assert taken("differences", NOW) == []


@pytest.mark.parametrize(
    ("what", "first", "last", "field"),
    [("wallets", 0, 0, "what"), ("paid", 1, 0, "last"), ("paid", 0, 366, "last")],
)
def test_what_cannot_be_meant_is_refused(what: str, first: int, last: int, field: str) -> None:
    days = [DAY + dt.timedelta(days=number) for number in (first, last)]
    with pytest.raises(ServiceError) as refusal:
        money_export(what=what, period=Period(*days), whole=False, actor="test")
    assert refusal.value.field == field
    assert not AuditEvent.objects.filter(action="export.money").exists()


def words(**fields: Any) -> dict[str, Any]:
    return {"what": "paid", "first": DAY.isoformat(), "last": DAY.isoformat(), **fields}


def events() -> list[tuple[str, bool]]:
    found = AuditEvent.objects.filter(action="export.money").order_by("id")
    return [(one.actor, one.after["whole_payees"]) for one in found]  # type: ignore[index]


def test_the_page_gives_the_file_and_the_log_knows() -> None:
    people()
    fay = desk.at_desk("finance", "fay")
    assert fay.get(PAGE).status_code == 200
    answer = fay.post(PAGE, words())
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"] == (f'attachment; filename="laisee-paid-{DAY}-{DAY}.csv"')
    assert len(rows(b"".join(answer.streaming_content))) == 1
    assert events() == [("staff:fay", False)]
    wrong = fay.post(PAGE, words(last=(DAY - dt.timedelta(days=1)).isoformat()))
    assert wrong.status_code == 422 and "The last day is before the first." in str(wrong.content)


def test_whole_payees_want_the_password() -> None:
    people()
    fay = desk.at_desk("finance", "fay")
    session = fay.session
    session[SESSION_KEY] = 0  # she logged in long ago
    session.save()
    assert fay.post(PAGE, words(whole="on")).status_code == 422
    assert fay.post(PAGE, words(whole="on", password="guess")).status_code == 422
    assert events() == []
    answer = fay.post(PAGE, words(whole="on", password=stage.PASSWORD))
    assert answer.status_code == 200 and b"".join(answer.streaming_content)
    assert events() == [("staff:fay", True)]


def test_who_may_not_take_files_gets_none() -> None:
    for group in ("operations", "approver", "support", "sre"):
        assert desk.at_desk(group).post(PAGE, words()).status_code == 403
    # Files, but no whole payees: the box isn't there, and ticking it all the same does nothing.
    user = stage.member("support", "tess")
    from django.contrib.auth.models import Permission

    user.user_permissions.add(Permission.objects.get(codename="export_money"))
    answer = desk.at_desk("support", "tess").post(PAGE, words(whole="on"))
    assert answer.status_code == 200 and events() == [("staff:tess", False)]


def test_the_command_writes_a_file_that_only_its_owner_reads(tmp_path: Any) -> None:
    people()
    path = tmp_path / "paid.csv"
    days = {"first": DAY, "last": DAY}
    call_command("export_money", "paid", **days, out=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(rows(path.read_bytes())) == 1
    with pytest.raises(CommandError, match="is there already"):
        call_command("export_money", "paid", **days, out=path)
    out = io.StringIO()
    call_command("export_money", "payouts", **days, stdout=out)
    assert len(rows(out.getvalue().encode())) == 2
    with pytest.raises(CommandError, match="before the first"):
        call_command("export_money", "paid", first=DAY, last=DAY - dt.timedelta(days=1))
