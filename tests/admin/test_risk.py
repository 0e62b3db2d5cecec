"""Risk on the desk: a draft is tried and published, a whole case is decided, in both languages."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.urls import reverse

from engine.models import AuditEvent
from engine.staff.reauth import SESSION_KEY
from packets.models import Hold
from referrals.models import Ban, RiskAct, RiskCase, RiskPolicy, RiskTrial
from referrals.risk.policy import SHIPPED, policy_of
from referrals.tasks import risk_work
from tests.admin import desk
from tests.campaign import stage
from tests.referrals.farming import CHAIN, farm_and_family, pay_out, sweep, who

pytestmark = pytest.mark.django_db(transaction=True)
POLICY = "/admin/referrals/riskcase/policy/"


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False


def typed(**changes: Any) -> dict[str, Any]:
    shipped = {reason.value: points for reason, points in SHIPPED.weights.items()}
    return {"challenge_at": 40, "hold_at": 60, "deny_at": "", **shipped, **changes}


def test_a_draft_is_tried_seen_and_published() -> None:
    growth = farm_and_family()
    pay_out(growth, "purse-1", *CHAIN)
    ria = desk.at_desk("risk")

    page = ria.get(POLICY).content.decode()
    refused = ria.post(POLICY, typed(challenge_at=80))
    assert "data-rules" in page and page.count("data-version") == 1
    assert refused.status_code == 422 and desk.refusals(refused).keys() == {"challenge_at"}
    assert not RiskTrial.objects.exists()

    answer = ria.post(POLICY, typed(hold_at=90, chain=0))
    trial = RiskTrial.objects.get()
    address = f"{POLICY}trial/{trial.pk}/"
    assert (answer.status_code, answer["Location"]) == (302, address)
    waiting = ria.get(address).content.decode()
    assert "data-publish" not in waiting
    assert ria.get(address, {"as": "json"}).json()["finished"] is False
    early = ria.post(f"{address}publish/", {"reason": "why"})
    assert early.status_code == 422 and RiskPolicy.objects.count() == 1

    risk_work()
    shown = ria.get(address).content.decode()
    assert ria.get(address, {"as": "json"}).json() == {
        "percent": 100, "rows": "10", "finished": True,
    }  # fmt: skip
    assert 'data-change="hold-challenge"' in shown
    person = reverse("admin:referrals_person", args=[growth.campaign.pk, who(growth, "p3").hex()])
    assert person in shown and shown.count("data-decided") == 2
    assert shown.count("data-differs") == 2, "the hold's score and the chain's points"
    asked = ria.get(f"{address}publish/").content.decode()
    assert f">{len(CHAIN)}<" in asked

    done = ria.post(f"{address}publish/", {"reason": "chains are classes"})

    assert (done.status_code, done["Location"]) == (302, POLICY)
    made = RiskPolicy.objects.get(version=2)
    assert (made.published_by, made.reason, made.trial_id) == (
        f"staff:{stage.member('risk').get_username()}", "chains are classes", trial.pk,
    )  # fmt: skip
    assert policy_of(made).hold_at == 90
    assert "data-publish" not in ria.get(address).content.decode()


def test_who_may_look_and_who_may_not() -> None:
    chinese = desk.at_desk("finance", lang="zh-hans").get(POLICY).content.decode()
    assert "风控策略" in chinese and "<form" not in chinese.split("data-rules")[1]
    assert desk.at_desk("finance", "tom").post(POLICY, typed()).status_code == 403
    assert desk.at_desk("support").get(POLICY).status_code == 403
    assert not RiskTrial.objects.exists()


def test_all_of_a_case_is_decided_with_a_reason_and_the_password() -> None:
    growth = farm_and_family()
    pay_out(growth, "purse-1", *CHAIN)
    sweep()
    case = RiskCase.objects.get()
    page = f"/admin/referrals/riskcase/{case.pk}/"
    ria, finance = desk.at_desk("risk"), desk.at_desk("finance")

    shown = ria.get(f"{page}change/").content.decode()
    assert re.findall(r'data-act="(\w+)"', shown) == ["release", "forfeit", "ban"]
    assert f"{len(CHAIN)} people have 1 purse between them." in shown
    assert shown.count('data-told="joined"') == len(CHAIN) - 1
    assert shown.count('data-told="held"') == shown.count('data-told="earned"') == len(CHAIN)
    assert re.findall(r'data-act="(\w+)"', finance.get(f"{page}change/").content.decode()) == [
        "release", "forfeit",
    ]  # fmt: skip
    assert finance.post(f"{page}ban/do/", {"reason": "why"}).status_code == 403
    assert ria.get(f"{page}burn/do/").status_code == 404

    session = ria.session
    del session[SESSION_KEY]
    session.save()
    asked = ria.post(f"{page}forfeit/do/", {"reason": "a farm"})
    assert asked.status_code == 422 and desk.refusals(asked).keys() == {"password"}
    assert not RiskAct.objects.exists()
    done = ria.post(f"{page}forfeit/do/", {"reason": "a farm", "password": stage.PASSWORD})
    assert done.status_code == 302, desk.refusals(done)
    meanwhile = ria.get(f"{page}change/").content.decode()
    assert "data-progress" in meanwhile and "data-buttons" not in meanwhile
    assert ria.get(f"{page}change/", {"as": "json"}).json() == {
        "percent": 0, "rows": f"0 / {len(CHAIN)}", "finished": False,
    }  # fmt: skip

    risk_work()

    assert set(Hold.objects.values_list("state", "reason")) == {("forfeited", "a farm")}
    after = desk.at_desk("risk", "zoe", lang="zh-hans").get(f"{page}change/").content.decode()
    assert after.count('data-told="forfeited"') == len(CHAIN) and "全部没收" in after
    assert AuditEvent.objects.filter(action="risk_case.forfeit", reason="a farm").count() == 1

    assert ria.post(f"{page}ban/do/", {"reason": "a farm"}).status_code == 302
    risk_work()
    banned = {bytes(one) for one in Ban.objects.values_list("participant", flat=True)}
    assert banned == {who(growth, name) for name in CHAIN}
    assert set(Ban.objects.values_list("campaign", "reason")) == {(case.campaign_id, "a farm")}
