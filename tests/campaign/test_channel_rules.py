"""Platforms' rules are read by a person, on record, before links go there."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import translation

from campaign import channel_rules, services
from campaign.channel_rules import RULES, WITHOUT_A_RULE, acknowledgements
from campaign.models import Campaign, CampaignChannel, Channel
from campaign.versions import version_hash
from engine.models import AuditEvent
from referrals.linking.spread import forget, read
from referrals.linking.switching import channel_switch
from referrals.sharing.words import words_of
from tests.admin import desk
from tests.campaign import stage
from tests.campaign.test_services import refused

pytestmark = pytest.mark.django_db

HOME = desk.HOME


def ann() -> User:
    return stage.member("operations", "ann")


def spreading(*ways: str, **fields: Any) -> Campaign:
    """A draft that goes to these channels; whoever reads rules for `stage.ready` hasn't yet."""
    campaign = stage.draft()
    stage.add_packet(campaign)
    services.growth_edit(
        campaign_id=campaign.pk, actor=stage.ACTOR, ways=list(ways) or None, **fields
    )
    texts = {"rules_zh": "每人限领一次", "odds_zh": "人人有份"}
    Campaign.objects.filter(pk=campaign.pk).update(**texts)
    return Campaign.objects.get(pk=campaign.pk)


def acknowledge(campaign: Campaign, **versions: int) -> None:
    services.channels_acknowledge(campaign_id=campaign.pk, versions=versions, by=ann())


# --- the words ------------------------------------------------------------------------------------


def test_each_channel_has_a_rule_or_none_on_purpose() -> None:
    assert set(RULES) | set(WITHOUT_A_RULE) == set(Channel)
    assert not set(RULES) & set(WITHOUT_A_RULE)
    for rule in RULES.values():
        assert "不构成法律意见" in rule.zh and "not legal advice" in rule.en
        assert rule.vehicles and rule.version >= 1


def test_words_that_changed_have_another_version() -> None:
    """Whoever edits them raises the version and writes the new hash here; older ones stay."""
    known = {
        ("wechat", 1): "ca35815982d31bec",
        ("moments", 1): "0d0325d40b821c76",
        ("qq", 1): "f8e6533af08bf110",
        ("alipay", 1): "1dd85682728d1843",
        ("weibo", 1): "267f96dbbeed3b2a",
        ("sms", 1): "cd5ec2631f0abe46",
        ("other", 1): "111380d32695604e",
    }
    for rule in RULES.values():
        assert known[rule.channel.value, rule.version] == rule.sha256[:16], rule.channel


# --- before it is handed in -----------------------------------------------------------------------


def test_nothing_is_handed_in_before_the_rules_of_its_channels_were_read() -> None:
    campaign = spreading("wechat/link", "sms/text", "feed/link")

    refusal = refused(services.campaign_submit, campaign_id=campaign.pk, by=ann())
    assert (refusal.field, refusal.code) == ("ways", "not_acknowledged")
    with translation.override("en"):
        assert refusal.message.endswith("WeChat chat, text message.")
    acknowledge(campaign, wechat=1)
    refusal = refused(services.campaign_submit, campaign_id=campaign.pk, by=ann())
    with translation.override("en"):
        assert refusal.message.endswith("first: text message.")
    acknowledge(campaign, sms=1)

    assert services.campaign_submit(campaign_id=campaign.pk, by=ann()).state == "review"
    assert all(one.is_current and one.by == "ann" for one in acknowledgements(campaign))


@pytest.mark.parametrize("ways", [("feed/link",), ("offline/poster", "feed/qr")])
def test_where_no_platform_has_a_rule_nothing_is_asked(ways: tuple[str, ...]) -> None:
    campaign = spreading(*ways)
    assert services.campaign_submit(campaign_id=campaign.pk, by=ann()).state == "review"


def test_a_campaign_that_may_not_be_shared_asks_nothing() -> None:
    campaign = spreading("wechat/link", is_on=False)
    assert services.campaign_submit(campaign_id=campaign.pk, by=ann()).state == "review"


def test_a_way_that_is_switched_off_asks_nothing() -> None:
    campaign = spreading("wechat/link", "feed/link")
    channel_switch(
        campaign_id=campaign.pk, channel="wechat", vehicle="link", on=False, reason="x", actor="x"
    )
    assert services.campaign_submit(campaign_id=campaign.pk, by=ann()).state == "review"


def test_who_read_which_words_when_is_on_record() -> None:
    campaign = spreading("wechat/link")
    acknowledge(campaign, wechat=1)

    rows = CampaignChannel.objects.filter(campaign=campaign, channel="wechat")
    assert set(rows.values_list("acknowledged_by__username", "acknowledged_version")) == {
        ("ann", 1)
    }
    assert rows.exclude(acknowledged_at=None).count() == 4
    event = AuditEvent.objects.get(action="campaign.channels_acknowledge")
    assert event.actor == "staff:ann"
    assert event.after == {"wechat": {"version": 1, "sha256": RULES[Channel.WECHAT].sha256}}


def test_reading_voids_no_approval_and_changes_no_version() -> None:
    campaign = spreading("wechat/link")
    before = version_hash(campaign)
    acknowledge(campaign, wechat=1)
    services.campaign_submit(campaign_id=campaign.pk, by=ann())
    acknowledge(campaign, wechat=1)
    campaign.refresh_from_db()
    assert campaign.state == "review" and version_hash(campaign) == before


def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words on WeChat have changed."""
    rule = RULES[Channel.WECHAT]
    later = channel_rules.ChannelRule(
        rule.channel, rule.version + 1, rule.zh + "!", rule.en + "!", rule.vehicles
    )
    monkeypatch.setitem(RULES, Channel.WECHAT, later)


def test_older_words_do_not_count_not_even_for_the_approver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    campaign = spreading("wechat/link")
    acknowledge(campaign, wechat=1)
    services.campaign_submit(campaign_id=campaign.pk, by=ann())
    newer(monkeypatch)

    refusal = refused(
        services.campaign_approve,
        campaign_id=campaign.pk,
        version_hash=version_hash(campaign),
        by=stage.member("approver", "bob"),
    )
    assert refusal.code == "not_acknowledged"
    refusal = refused(
        services.channels_acknowledge, campaign_id=campaign.pk, versions={"wechat": 1}, by=ann()
    )
    assert refusal.code == "changed_meanwhile"
    acknowledge(campaign, wechat=2)
    assert stage.everything()["campaigns"][0]["state"] == "review"


@pytest.mark.parametrize(
    ("versions", "code"), [({}, "blank"), ({"feed": 1}, "unknown"), ({"pigeon": 1}, "unknown")]
)
def test_what_cannot_be_acknowledged(versions: dict[str, int], code: str) -> None:
    campaign = spreading("wechat/link")
    refusal = refused(
        services.channels_acknowledge, campaign_id=campaign.pk, versions=versions, by=ann()
    )
    assert refusal.code == code


# --- afterwards -----------------------------------------------------------------------------------


def test_a_way_is_switched_on_only_where_the_rules_were_read() -> None:
    campaign = spreading("wechat/link", "feed/link")
    switch: dict[str, Any] = {
        "campaign_id": campaign.pk, "channel": "wechat", "vehicle": "link", "reason": "x",
        "actor": "x",
    }  # fmt: skip
    channel_switch(**switch, on=False)
    services.campaign_submit(campaign_id=campaign.pk, by=ann())
    services.campaign_approve(
        campaign_id=campaign.pk,
        version_hash=version_hash(campaign),
        by=stage.member("approver", "bob"),
    )

    refusal = refused(channel_switch, **switch, on=True)
    assert (refusal.field, refusal.code) == ("channel", "not_acknowledged")
    acknowledge(campaign, wechat=1)
    channel_switch(**switch, on=True)
    assert CampaignChannel.objects.get(campaign=campaign, channel="wechat", vehicle="link").is_on


def test_nothing_is_promised_for_sharing_where_a_platform_forbids_it() -> None:
    campaign = spreading(title_zh="邀请得现金", title_en="Cash for inviting", text_zh="快来")
    forget()
    spread = read(campaign.pk)
    assert spread is not None
    with translation.override("zh-hans"):
        for channel in Channel:
            words = words_of(spread, "zh-hans", channel.value)
            plain = channel in (Channel.WECHAT, Channel.MOMENTS, Channel.QQ)
            assert words.title == ("春节红包" if plain else "邀请得现金"), channel
            assert words.text == ("好友分享给你。" if plain else "快来"), channel


# --- the pages ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False


def logged_in(user: User) -> Client:
    client = Client(headers={"accept-language": "en"})
    client.force_login(user)
    return client


def test_the_pages_warn_record_and_show_it_to_the_approver() -> None:
    campaign = spreading("wechat/link", "wechat/text")
    client, address = logged_in(ann()), f"{HOME}{campaign.pk}/"
    assert "data-unread" in client.get(f"{address}change/").content.decode()
    text = client.get(f"{address}platform-rules/").content.decode()
    assert "must promise nothing for sharing" in text
    assert "On, though the rule speaks against it: code in a text" in text

    stale = client.post(f"{address}platform-rules/", {"read": "wechat:7"})
    assert stale.status_code == 422 and "have changed" in stale.content.decode()
    assert client.post(f"{address}platform-rules/", {"read": "wechat:1"}).status_code == 302

    assert "data-unread" not in client.get(f"{address}change/").content.decode()
    services.campaign_submit(campaign_id=campaign.pk, by=ann())
    page = logged_in(stage.member("approver", "bob")).get(f"{address}review/").content.decode()
    assert "data-platform-rules" in page and "ann, 20" in page and "code in a text" in page


def test_who_may_not_edit_may_not_acknowledge() -> None:
    campaign = spreading("wechat/link")
    client = logged_in(stage.member("approver", "bob"))
    address = f"{HOME}{campaign.pk}/platform-rules/"
    assert client.get(address).status_code == 200
    assert client.post(address, {"read": "wechat:1"}).status_code == 403
    assert not acknowledgements(campaign)[0].is_current
