"""The limits' screen: a rule is typed in yuan and days, and reads as a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from engine.models import AuditEvent
from packets.models import LimitRule
from tests.admin import desk
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "/admin/packets/limitrule/"


def words(**fields: Any) -> dict[str, Any]:
    return {
        "subject": "device",
        "measure": "claims",
        "method": "window",
        "most": "3",
        "window": "1",
        "unit": "86400",
        "timezone": "Asia/Shanghai",
        "when_away": "refuse",
        "is_active": "on",
        **fields,
    }


def test_a_limit_is_made_and_changed() -> None:
    campaign = stage.live()
    ann = desk.at_desk()
    assert ann.post(f"{LIST}add/", words(campaign=campaign.pk)).status_code == 302

    page = ann.get(LIST).content.decode()
    name = str(campaign)
    assert f"One device in campaign “{name}” may make 3 claims every day." in page
    rule = LimitRule.objects.get()
    assert rule.gate_id == campaign.gate_id

    change = f"{LIST}{rule.pk}/change/"
    money = words(measure="amount", most="88.80", method="pace", at_once="8", unit="3600")
    assert ann.get(change).status_code == 200
    assert ann.post(change, money).status_code == 302
    rule.refresh_from_db()
    assert (rule.limit, rule.burst, rule.window_s, rule.gate_id) == (8_880, 800, 3_600, None)
    assert "¥88.80 every hour" in ann.get(LIST).content.decode()
    chinese = desk.at_desk(lang="zh-hans").get(LIST).content.decode()
    assert "同一设备每小时最多领到 ¥88.80" in chinese
    assert (
        list(AuditEvent.objects.filter(action="limit.set").values_list("actor", flat=True))
        == ["staff:operations"] * 2
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"most": "0"}, "The limit is at least 1."),
        ({"most": "three"}, "Enter a whole number, or an amount in yuan."),
        ({"window": "40"}, "A window has 1 second to 31 days."),
        ({"at_once": "5"}, "Only a pace has a burst"),
        ({"method": "pace"}, "A pace needs a burst"),
        ({"packet_id": "no-such"}, "There is no such packet."),
        ({"timezone": "Mars"}, "There is no such time zone."),
    ],
)
def test_what_cannot_be_meant_is_said_beside_its_field(wrong: dict[str, str], said: str) -> None:
    answer = desk.at_desk().post(f"{LIST}add/", words(**wrong))
    assert answer.status_code == 200 and said in answer.content.decode().replace("&#x27;", "'")
    assert (
        not LimitRule.objects.exists()
        and not AuditEvent.objects.filter(action="limit.set").exists()
    )
