"""The desk of held money: what waits, one hold with its evidence, the decision, the rules."""

from __future__ import annotations

from typing import Any

import pytest

from engine.models import AuditEvent
from engine.staff.reauth import SESSION_KEY
from packets import settlement
from packets.holds.appeals import hold_appeal
from packets.models import Hold, RiskRule
from tests.admin import desk
from tests.campaign import stage
from tests.factories import make_claims
from tests.packets.holding import claims_of_one, held_hold, rule
from tests.packets.settling import picture, wallet_fen

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "/admin/packets/hold/"
RULES = "/admin/packets/riskrule/"


def text(answer: Any) -> str:
    page: str = answer.content.decode().replace("&#x27;", "'")
    return page


def test_the_oldest_open_hold_comes_first_and_an_appeal_shows() -> None:
    _, holds = held_hold(2)
    hold_appeal(
        hold_id=holds[1].pk, participant=bytes(holds[1].participant), text="Why?", actor="x"
    )
    ria = desk.at_desk("risk")
    page = text(ria.get(LIST))
    assert page.count("More claims in a short time than usual") == 2
    assert 'alt="True"' in page or "True" in page
    # Its number stands in the navigation.
    assert "Holds" in page and ">2<" in "".join(page.split())
    found = text(ria.get(LIST, {"q": holds[0].pk.hex}))
    assert found.count("More claims in a short time than usual") == 1


def test_one_hold_shows_its_evidence() -> None:
    _, [hold] = held_hold()
    hold_appeal(hold_id=hold.pk, participant=bytes(hold.participant), text="我没有作弊", actor="x")
    page = text(desk.at_desk("risk").get(f"{LIST}{hold.pk}/change/"))
    assert "2 claims within 1 hour; up to 1 claim would have been usual." in page
    assert "我没有作弊" in page and page.count("data-this") == 1
    assert 'data-act="release"' in page and 'data-act="forfeit"' in page
    chinese = text(desk.at_desk("risk", lang="zh-hans").get(f"{LIST}{hold.pk}/change/"))
    assert "短时间内领取次数异常多" in chinese


def test_a_decision_wants_a_reason_and_the_password() -> None:
    _, [hold] = held_hold()
    ria = desk.at_desk("risk")
    path, before = f"{LIST}{hold.pk}/release/do/", picture()
    asked = ria.get(path)
    assert "¥1.00 goes to the wallet of the person." in text(asked)

    session = ria.session
    session.pop(SESSION_KEY, None)
    session.save()
    for words in ({"reason": "fine"}, {"reason": "fine", "password": "wrong"}, {}):
        assert ria.post(path, words).status_code == 422
    assert picture() == before

    done = ria.post(path, {"reason": "fine", "password": stage.PASSWORD})
    assert done.status_code == 302
    hold.refresh_from_db()
    assert (hold.state, hold.resolved_by, hold.reason) == ("released", "staff:risk", "fine")
    assert wallet_fen(bytes(hold.participant)) == 200


def test_who_comes_second_is_told_and_changes_nothing() -> None:
    _, [hold] = held_hold()
    ria, finn = desk.at_desk("risk"), desk.at_desk("finance")
    assert ria.post(f"{LIST}{hold.pk}/forfeit/do/", {"reason": "a farm"}).status_code == 302
    before = picture()
    second = finn.post(f"{LIST}{hold.pk}/release/do/", {"reason": "fine"})
    assert second.status_code == 422 and "forfeited" in text(second)
    assert picture() == before
    # Decided: nothing is left to press, and what was said is shown.
    page = text(finn.get(f"{LIST}{hold.pk}/change/"))
    assert "data-act" not in page and "a farm" in page


def test_who_may_not_look_sees_nothing() -> None:
    _, [hold] = held_hold()
    ann = desk.at_desk("operations")
    for path in (LIST, f"{LIST}{hold.pk}/change/", RULES, f"{RULES}try/"):
        assert ann.get(path).status_code == 403
    assert "packets/hold" not in text(ann.get("/admin/"))


def words(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "amount_per_person",
        "usual": "88.80",
        "window": "2",
        "unit": "3600",
        "is_active": "on",
        "note": "the gala",
        **fields,
    }


def test_a_rule_is_written_in_yuan_and_hours_and_keeps_its_versions() -> None:
    ria = desk.at_desk("risk")
    assert ria.post(f"{RULES}add/", words()).status_code == 302
    first = RiskRule.objects.get()
    assert (first.most, first.window_s, first.version, first.changed_by) == (
        8_880, 7_200, 1, "staff:risk",
    )  # fmt: skip
    said = "A claim is held when its person won more than ¥88.80 within 2 hours."
    assert said in text(ria.get(RULES))

    change = f"{RULES}{first.pk}/change/"
    assert 'value="88.80"' in text(ria.get(change))
    assert ria.post(change, words(usual="100", unit="86400")).status_code == 302
    second = RiskRule.objects.get(version=2)
    assert (second.rule, second.most) == (first.rule, 10_000)
    page = text(ria.get(f"{RULES}{second.pk}/change/"))
    assert said in page and "¥100.00 within 2 days" in page
    # The list has the version that counts, and what was replaced is changed no more.
    assert text(ria.get(RULES)).count("A claim is held") == 1
    assert ria.post(change, words()).status_code == 302
    assert RiskRule.objects.count() == 2
    assert AuditEvent.objects.filter(action="risk_rule.set").count() == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"usual": "0"}, "The number is at least 1."),
        ({"usual": "lots"}, "Enter a whole number, or an amount in yuan."),
        ({"kind": "claims_per_person", "usual": "1000"}, "at most 999 claims are counted"),
        ({"window": "40", "unit": "86400"}, "A window has 1 second to 31 days."),
    ],
)
def test_a_rule_that_cannot_be_meant_is_said_beside_its_field(
    wrong: dict[str, str], said: str
) -> None:
    answer = desk.at_desk("risk").post(f"{RULES}add/", words(**wrong))
    assert answer.status_code == 200 and said in text(answer)
    assert not RiskRule.objects.exists()


def test_a_rule_is_tried_on_past_claims() -> None:
    _, lane, _ = claims_of_one(4)
    make_claims(lane, 2)
    settlement.settle_lane(lane.id)
    ria = desk.at_desk("risk")
    tried = {"kind": "claims_per_person", "usual": "2", "window": "1", "unit": "3600"}
    page = text(ria.get(f"{RULES}try/", tried))
    assert "more than 2 claims within 1 hour" in page
    numbers = page[page.index("data-numbers") :]
    assert ">6<" in numbers and ">2<" in numbers and "¥2.00" in numbers
    made = rule(most=3)
    assert "more than 3 claims" in text(ria.get(f"{RULES}try/", {"rule": made.pk}))
    assert not Hold.objects.exists()
