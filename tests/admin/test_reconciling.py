"""The workbench: days at a glance, a statement taken in, a difference looked at and resolved."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from packets.models import Difference, PayoutCall, Statement, StatementLine
from packets.reconciling import matching, three_way
from tests.admin import desk
from tests.packets.reconciling.stage import DAY, account, as_csv, compared, line, noon, payout

pytestmark = pytest.mark.django_db(transaction=True)

OVERVIEW = "/admin/packets/statement/overview/"
UPLOAD = "/admin/packets/statement/upload/"


def text(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def send(client: Client, raw: bytes, **fields: Any) -> Any:
    rail = fields.pop("account", None) or account()
    words = {"account": rail.pk, "day": DAY.isoformat(), **fields}
    return client.post(UPLOAD, {**words, "file": SimpleUploadedFile("day.csv", raw)})


@pytest.mark.parametrize("lang", ["en", "zh-hans"])
def test_empty_pages_say_so(lang: str) -> None:
    client = desk.at_desk("finance", lang=lang)
    for address in (OVERVIEW, UPLOAD, "/admin/packets/difference/", "/admin/packets/stockcheck/"):
        assert client.get(address).status_code == 200, address
    said = {"en": "There is no provider account yet", "zh-hans": "还没有渠道账户"}
    assert said[lang] in text(client.get(OVERVIEW))


def test_days_statements_and_classes_at_a_glance() -> None:
    rail = account()
    a, _missing = payout(rail), payout(rail, ended=noon(DAY, 13))
    compared(rail, line(a), line("STRANGE", 5))
    three_way.three_way_check(client=_stock(), provider_of=_no_provider)
    page = text(desk.at_desk("finance").get(OVERVIEW))
    assert f'title="{DAY.isoformat()}: differs (2)"' in page
    assert "days without a statement" in page or "day without a statement" in page
    assert (
        'href="/admin/packets/difference/?state__exact=open&amp;kind__exact=missing_there"' in page
    )
    assert "The three books agree" in page


def _stock() -> Any:
    from engine.lib.redis import stock

    return stock()


def _no_provider(_account: Any) -> Any:
    from packets.providers.base import ProviderUnavailable

    raise ProviderUnavailable("not here")


def test_a_statement_is_uploaded_compared_and_shown() -> None:
    rail = account()
    a = payout(rail)
    fay = desk.at_desk("finance", "fay")
    answer = send(fay, as_csv(line(a), line("STRANGE", 5)), account=rail)
    statement = Statement.objects.get()
    assert answer.status_code == 302
    assert answer["Location"] == f"/admin/packets/statement/{statement.pk}/change/"
    assert statement.uploaded_by == "staff:fay"

    page = answer["Location"]
    facts = {"label": "being compared", "percent": 0, "lines": "0 / 2", "finished": False}
    assert fay.get(f"{page}?as=json").json() == facts
    assert 'data-finished="no"' in text(fay.get(page))
    matching.statements_match_due(for_s=10)
    assert fay.get(f"{page}?as=json").json() == {
        "label": "compared", "percent": 100, "lines": "2 / 2", "finished": True,
    }  # fmt: skip
    shown = text(fay.get(page))
    assert "1 lines agree, 0 differed and are resolved, 1 differ" in shown
    assert "STRANGE" in shown and "¥0.05" in shown


def test_rows_that_cannot_be_read_are_shown_and_nothing_is_kept() -> None:
    fay = desk.at_desk("finance")
    raw = as_csv(line("A")) + b"B,ref,0,paid,2026-11-20\r\nC,ref,1,maybe,2026-11-20\r\n"
    answer = send(fay, raw)
    assert answer.status_code == 422
    page = text(answer)
    assert "Nothing was kept. Row 3 can&#x27;t be read" in page
    assert "<td>the outcome is neither paid, failed nor returned</td>" in page
    assert send(fay, b"", account=_rail()).status_code == 422
    assert not Statement.objects.exists() and not StatementLine.objects.exists()
    chinese = text(send(desk.at_desk("finance", lang="zh-hans"), raw, account=_rail()))
    assert "未保存任何内容。第 3 行无法读取：金额不是正数金额。" in chinese


def _rail() -> Any:
    from packets.models import ProviderAccount

    return ProviderAccount.objects.get()


def test_a_difference_shows_both_sides_and_is_resolved_once() -> None:
    rail = account()
    a = payout(rail)
    PayoutCall.objects.create(
        payout=a.payout, number=a, kind="submit", fence=1, result="unknown", code="timeout",
        ended_at=noon(),
    )  # fmt: skip
    compared(rail, line(a, 999))
    one = Difference.objects.get()
    address = f"/admin/packets/difference/{one.pk}/change/"
    fay, sam = desk.at_desk("finance", "fay"), desk.at_desk("sre", "sam")
    page = text(fay.get(address))
    for word in (a.number, "¥10.00", "¥9.99", "timeout", "138****0000", "Resolve the difference"):
        assert word in page, word
    assert "Resolve the difference" not in text(sam.get(address))

    resolve = f"/admin/packets/difference/{one.pk}/resolve/"
    assert "No money moves." in text(fay.get(resolve))
    assert fay.post(resolve, {"resolution": "agrees", "reason": "x"}).status_code == 422
    assert fay.post(resolve, {"resolution": "not_ours", "reason": ""}).status_code == 422
    words = {"resolution": "statement_wrong", "reason": "their fee stands in the wrong column"}
    assert fay.post(resolve, words)["Location"] == address
    page = text(fay.get(address))
    assert "their fee stands in the wrong column" in page and "staff:fay" in page
    again = fay.post(resolve, words)
    assert again.status_code == 422 and "is resolved; this needs it to be open" in text(again)


def test_the_list_is_filtered_by_class_state_account_and_day() -> None:
    rail = account()
    a = payout(rail)
    compared(rail, line(a, 999), line("STRANGE", 5))
    fay = desk.at_desk("finance")

    def numbers(query: str) -> set[str]:
        page = text(fay.get(f"/admin/packets/difference/?{query}"))
        return {number for number in (a.number, "STRANGE") if number in page}

    day = DAY.isoformat()
    assert numbers("") == {a.number, "STRANGE"}
    assert numbers("kind__exact=amount") == {a.number}
    assert numbers("state__exact=resolved") == set()
    assert numbers(f"account__id__exact={rail.pk}&day_from={day}&day_to={day}") == {
        a.number, "STRANGE",
    }  # fmt: skip
    assert numbers("day_from=2020-01-01&day_to=2020-01-02") == set()
    assert numbers("q=STRANGE") == {"STRANGE"}


def test_a_check_that_found_something_names_it() -> None:
    rail = account()
    payout(rail, state="unknown")
    _stock().hset("lane:{x:0}:meta", "epoch", 1)
    made = three_way.three_way_check(client=_stock(), provider_of=_no_provider)
    made.report["found"] = [{"what": "clearing", "where": "rail", "ours": 1, "theirs": 2}]
    page = f"/admin/packets/stockcheck/{made.pk}/change/"
    assert "The three books agree" in text(desk.at_desk("sre").get(page))
    assert "¥10.00" in text(desk.at_desk("finance", lang="zh-hans").get(page))


@pytest.mark.parametrize("wrong", ["0", "999999999", "x", "9" * 30])
def test_what_is_not_there_is_not_found(wrong: str) -> None:
    fay = desk.at_desk("finance")
    for name in ("statement", "difference", "stockcheck"):
        assert fay.get(f"/admin/packets/{name}/{wrong}/change/").status_code == 404
