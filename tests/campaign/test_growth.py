"""How a campaign spreads is approved with it, copied with it, and afterwards only loosened."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from django.utils import translation

from campaign import growth_rules, growth_words, selectors, services, versions
from campaign.admin.review import _change, _sheets
from campaign.blueprints import fold
from campaign.models import WAYS, Campaign, CampaignGrowth, Disclosure
from campaign.services.growth import FAVOUR
from engine.lib import clock
from engine.lib.errors import ServiceError
from engine.run.paths import CHECKOUT
from packets.models import Packet
from packets.services import packet_close
from tests.campaign import stage
from tests.campaign.test_services import refused

pytestmark = pytest.mark.django_db

TICKET = {"needs_ticket": True, "strategy": "fixed"}


def edit(campaign: Campaign, **fields: Any) -> CampaignGrowth:
    return services.growth_edit(campaign_id=campaign.pk, actor=stage.ACTOR, **fields)


def spreading(**fields: Any) -> Campaign:
    """A draft with a packet for everybody, whose inviters get ¥1.00 and friends ¥0.50."""
    campaign = stage.draft()
    stage.add_packet(campaign)
    edit(campaign, **{"new_only": False, **fields})
    services.growth_reward_packets_make(
        campaign_id=campaign.pk, inviter_fen=100, invitee_fen=50, friends=20, actor=stage.ACTOR
    )
    return stage.ready(campaign)


def section(campaign: Campaign) -> dict[str, Any]:
    found: dict[str, Any] = versions.campaign_document(campaign)["growth"]
    return found


def growth(campaign: Campaign) -> CampaignGrowth:
    return CampaignGrowth.objects.select_related("inviter_packet", "invitee_packet").get(
        campaign=campaign
    )


# --- the version ----------------------------------------------------------------------------------


def test_a_campaign_without_growth_is_the_document_that_it_was() -> None:
    campaign = stage.draft()
    stage.add_packet(campaign)

    assert "growth" not in versions.campaign_document(campaign)
    assert growth_rules.growth_document(campaign) is None


def test_everything_about_growth_is_in_the_version() -> None:
    campaign = spreading()
    known = versions.version_hash(campaign)
    others: dict[str, Any] = {
        "is_on": False, "attribution": "first", "window_s": 3600, "new_only": True, "depth": 2,
        "qualifying_event": "signed_up", "inviter_packet": None, "invitee_packet": None,
        "inviter_cap": 3, "shared_friends": 4, "share_cooldown_s": 60, "visits_per_link_hour": 9,
        "complaint_per_mille": 1, "complaint_min_visits": 7, "destination": "https://a.example/x",
        "destination_hosts": ["a.example", "b.example"], "title_zh": "一", "title_en": "t",
        "text_zh": "二", "text_en": "e", "image_url": "https://a.example/p.png",
        "ways": ["wechat/link"],
    }  # fmt: skip
    assert set(others) | {"qualifying"} == set(growth_rules.FIELDS) == set(section(campaign))
    assert set(growth_words.LABELS) == set(growth_rules.FIELDS)

    columns = {field.name for field in CampaignGrowth._meta.concrete_fields}
    assert columns - {"id", "campaign", "changed_at"} == set(growth_rules.FIELDS)
    for name, value in others.items():
        more = {}
        if name == "destination":
            more = {"destination_hosts": ["a.example"]}
        if name == "qualifying_event":
            more = {"qualifying": "event"}
        edit(campaign, **{name: value, **more})
        now = versions.version_hash(campaign)
        assert now != known, name
        known = now


def test_an_edit_takes_an_approved_campaign_back_and_the_next_reader_sees_what_changed() -> None:
    campaign = spreading(window_s=7 * 86_400)
    starts = clock.now() + dt.timedelta(hours=1)
    services.campaign_update(
        campaign_id=campaign.pk, actor=stage.ACTOR, starts_at=starts,
        ends_at=starts + dt.timedelta(hours=1),
    )  # fmt: skip
    stage.approve(campaign)
    assert Campaign.objects.get(pk=campaign.pk).state == "scheduled"

    edit(campaign, inviter_cap=5, ways=["qq/link", "wechat/link", "wechat/qr"])

    campaign = Campaign.objects.get(pk=campaign.pk)
    assert campaign.state == "draft" and selectors.approval_valid(campaign) is None
    changes = selectors.campaign_changes(campaign)
    assert [(change.field, change.before, change.after) for change in changes] == [
        ("growth.inviter_cap", 20, 5),
        ("growth.ways", None, ["wechat/link", "wechat/qr", "qq/link"]),
    ]
    document = versions.campaign_document(campaign)
    with translation.override("en"):
        said = [_change(one, "UTC", growth_words.packets_of(document)) for one in changes]
        sheet = next(one for one in _sheets(document, "UTC") if one["title"] == "Growth")
    assert said[1] == {
        "label": "Growth: Channels",
        "before": "all",
        "after": "WeChat chat (link, QR code); QQ (link)",
    }
    rows = dict(sheet["rows"])
    assert rows["Reward of the inviter"] == "Reward for inviting: ¥1.00 × 20"
    assert rows["A visit counts for"] == "7 days"
    assert rows["In short"].splitlines() == [
        "Each friend who joins and opens a packet brings ¥1.00 to the inviter and ¥0.50 to the "
        "friend.",
        "An inviter gets a reward at most 5 times.",
        "All rewards together are at most ¥30.00.",
        "Whoever invited the friend last within 7 days counts as the inviter.",
        "Anybody can be invited.",
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"is_on": False}, "People can't share this campaign."),
        ({"inviter_packet": None, "invitee_packet": None}, "People share without a reward."),
        (
            {"inviter_packet": None, "qualifying": "event", "qualifying_event": "signed_up"},
            "Each friend who joins and does “signed_up” gets ¥0.50; the inviter gets nothing.",
        ),
        (
            {"invitee_packet": None},
            "Each friend who joins and opens a packet brings ¥1.00 to the inviter.",
        ),
    ],
)
def test_the_first_sentence_says_who_gets_what(fields: dict[str, Any], said: str) -> None:
    campaign = spreading()
    edit(campaign, **fields)
    with translation.override("en"):
        assert growth_words.sentences(versions.campaign_document(campaign))[0] == said


def test_depth_two_has_portions_for_inviters_of_inviters_and_says_so() -> None:
    campaign = spreading(depth=2)
    packet = growth(campaign).inviter_packet
    assert packet is not None and (packet.count, packet.total_fen) == (40, 4_000)
    with translation.override("en"):
        said = growth_words.sentences(versions.campaign_document(campaign))
    assert "Whoever invited the inviter gets the same once more, and nobody further up." in said


# --- what is refused ------------------------------------------------------------------------------


SENSELESS: list[tuple[dict[str, Any], str, str]] = [
    ({"depth": 3}, "depth", "out_of_range"),
    ({"depth": 0}, "depth", "out_of_range"),
    ({"window_s": 59}, "window_s", "out_of_range"),
    ({"window_s": 90 * 86_400 + 1}, "window_s", "out_of_range"),
    ({"inviter_cap": 0}, "inviter_cap", "out_of_range"),
    ({"attribution": "none"}, "attribution", "unknown"),
    ({"qualifying": "event"}, "qualifying_event", "blank"),
    ({"qualifying_event": "signed_up"}, "qualifying_event", "not_used"),
    ({"qualifying": "event", "qualifying_event": "Up!"}, "qualifying_event", "format"),
    ({"ways": ["wechat/pigeon"]}, "ways", "unknown"),
    ({"title_en": "one\ntwo"}, "title_en", "format"),
    ({"text_zh": "字" * 121}, "text_zh", "format"),
    ({"destination": "https://a.example/"}, "destination", "host"),
    ({"destination": "http://a.example/"}, "destination", "format"),
    ({"destination": "https://a@a.example/"}, "destination", "format"),
    ({"image_url": "javascript:alert(1)"}, "image_url", "format"),
    ({"destination_hosts": ["a.example:8"]}, "destination_hosts", "format"),
    ({"destination_hosts": [f"a{n}.example" for n in range(11)]}, "destination_hosts",
     "too_many"),
]  # fmt: skip


def test_growth_that_makes_no_sense_is_refused() -> None:
    campaign = spreading()
    for wrong, field, code in SENSELESS:
        refusal = refused(edit, campaign=campaign, **wrong)
        assert (refusal.field, refusal.code) == (field, code), wrong
        assert "depth" not in wrong or "law" in str(refusal.message)


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"strategy": "fixed"}, "needs_ticket"),
    ({**TICKET, "new_only": True}, "asks_more"),
    ({**TICKET, "group": "g"}, "asks_more"),
    ({**TICKET, "password": "p"}, "asks_more"),
    ({**TICKET, "targeted": True}, "asks_more"),
    ({**TICKET, "min_account_age_days": 1}, "asks_more"),
]


def test_a_reward_comes_from_a_packet_with_a_ticket_and_nothing_else() -> None:
    campaign = stage.draft()
    for cut, code in UNFIT:
        packet = stage.add_packet(campaign, **cut)
        refusal = refused(edit, campaign=campaign, inviter_packet=packet)
        assert (refusal.field, refusal.code) == ("inviter_packet", code), cut


def test_another_campaigns_packet_pays_no_rewards() -> None:
    campaign, other = stage.draft(), stage.draft()
    packet = stage.add_packet(other, **TICKET)
    assert refused(edit, campaign=campaign, invitee_packet=packet).code == "not_found"


def test_rewards_beyond_the_budget_are_not_made() -> None:
    campaign = stage.draft(budget_fen=1_000)
    refusal = refused(
        services.growth_reward_packets_make,
        campaign_id=campaign.pk, inviter_fen=100, invitee_fen=1, friends=10, actor=stage.ACTOR,
    )  # fmt: skip
    assert refusal.code == "budget_below_packets"
    assert not CampaignGrowth.objects.exists()


def test_a_packet_that_rewards_come_from_stays_and_stays_a_reward() -> None:
    campaign = spreading()
    packet = growth(campaign).inviter_packet
    assert packet is not None
    known = {"campaign_id": campaign.pk, "packet_id": packet.pk, "actor": stage.ACTOR}
    whole = {**known, "total_fen": 500, "count": 5, "strategy": "fixed"}

    assert refused(services.campaign_packet_remove, **known).code == "is_reward"
    assert refused(services.campaign_packet_change, **whole).code == "needs_ticket"
    services.campaign_packet_change(**whole, needs_ticket=True)
    edit(campaign, inviter_packet=None)
    services.campaign_packet_remove(**known)


def test_a_campaign_that_spreads_by_nothing_is_not_handed_in() -> None:
    campaign = spreading(ways=[])
    refusal = refused(
        services.campaign_submit, campaign_id=campaign.pk, by=stage.member("operations", "ann")
    )
    assert (refusal.field, refusal.code) == ("ways", "blank")


# --- after the launch -----------------------------------------------------------------------------

LOOSER: dict[str, tuple[Any, Any]] = {
    "window_s": (8 * 86_400, 6 * 86_400),
    "inviter_cap": (21, 19),
    "shared_friends": (6, 4),
    "visits_per_link_hour": (1_001, 999),
    "share_cooldown_s": (61, 59),
    "complaint_per_mille": (4, 6),
    "complaint_min_visits": (199, 201),
}


def launched(**fields: Any) -> Campaign:
    return stage.launch(spreading(**{"shared_friends": 5, "share_cooldown_s": 60, **fields}))


def test_a_running_campaign_is_only_loosened() -> None:
    campaign = launched()
    for name, (better, worse) in LOOSER.items():
        assert refused(edit, campaign=campaign, **{name: worse}).code == "not_in_favour", name
        edit(campaign, **{name: better})
        assert getattr(growth(campaign), name) == better
    assert Campaign.objects.get(pk=campaign.pk).state == "live"
    assert stage.audited(campaign)[-1] == "campaign.growth"
    published = Disclosure.objects.filter(campaign=campaign)
    assert published.latest("number").version_hash == versions.version_hash(campaign)
    causes = published.order_by("number").values_list("cause", flat=True)
    assert list(causes) == ["approved", *["growth"] * len(LOOSER)]


PROMISED: list[dict[str, Any]] = [
    {"attribution": "first"},
    {"depth": 2},
    {"qualifying": "event", "qualifying_event": "signed_up"},
    {"new_only": True},
    {"inviter_packet": None},
    {"ways": list(WAYS)},
    {"title_zh": "另一个"},
    {"destination_hosts": ["evil.example"]},
]


def test_what_was_promised_stays() -> None:
    campaign = launched(ways=["wechat/link"])
    for fields in PROMISED:
        assert refused(edit, campaign=campaign, **fields).code == "not_in_favour", fields


def test_every_field_has_its_verdict() -> None:
    """A field that is added is on one side or the other on purpose."""
    tested = {*LOOSER, "is_on", "new_only", *growth_rules.REWARDS}
    assert set(FAVOUR) == tested


def test_the_marketers_table_has_a_row_for_every_field_that_may_change() -> None:
    text = (Path(CHECKOUT) / "docs" / "marketing.md").read_text(encoding="utf-8")
    for language, begin in (("zh-hans", "## 中文"), ("en", "## English")):
        part = text.split(begin)[1].split("\n## ")[0]
        rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("|")]
        with translation.override(language):
            for name in FAVOUR:
                label = str(growth_words.LABELS[name])
                assert any(label in row for row in rows), (language, label)


def test_off_acts_at_once_and_on_again_only_as_it_was_approved() -> None:
    campaign = launched()
    edit(campaign, is_on=False)
    edit(campaign, is_on=True)
    quiet = stage.launch(spreading(is_on=False))
    assert refused(edit, campaign=quiet, is_on=True).code == "not_approved"
    assert refused(edit, campaign=stage.live(), is_on=True).code == "launched"


def test_a_topped_up_reward_takes_the_place_of_one_that_is_used_up() -> None:
    campaign = launched(new_only=True)
    same, less = (stage.add_packet(campaign, fen, 20, **TICKET) for fen in (2_000, 1_980))
    assert refused(edit, campaign=campaign, inviter_packet=less).code == "not_in_favour"
    edit(campaign, inviter_packet=same, new_only=False)
    assert growth(campaign).inviter_packet == same
    # A lucky one is no richer if somebody could get less.
    lucky = stage.add_packet(campaign, 4_000, 20, needs_ticket=True, min_fen=99)
    assert refused(edit, campaign=campaign, inviter_packet=lucky).code == "not_in_favour"
    edit(campaign, inviter_packet=stage.add_packet(campaign, 4_000, 20, needs_ticket=True,
                                                   min_fen=100))  # fmt: skip


def test_a_reward_for_fewer_people_or_none_is_in_nobodys_favour() -> None:
    campaign = launched()
    fewer = stage.add_packet(campaign, 19_000, 19, **TICKET)
    closed = stage.add_packet(campaign, 5_000, 50, **TICKET)
    packet_close(packet_id=closed.pk, actor=stage.ACTOR)
    closed.refresh_from_db()
    for packet in (fewer, closed):
        assert refused(edit, campaign=campaign, inviter_packet=packet).code == "not_in_favour"


def test_an_ended_campaign_stays_as_it_was() -> None:
    campaign = launched()
    services.campaign_end(campaign_id=campaign.pk, actor=stage.ACTOR)
    with pytest.raises(ServiceError):
        edit(campaign, inviter_cap=100)


# --- copies ---------------------------------------------------------------------------------------


def test_a_copy_spreads_as_its_model_with_packets_of_its_own() -> None:
    campaign = spreading(ways=["wechat/link"], attribution="first")
    copy = services.campaign_copy(
        campaign_id=campaign.pk, slug="again", starts_at=clock.now(), actor=stage.ACTOR
    )
    mine = {name: value for name, value in section(copy).items() if name not in _IDS}
    assert mine == {name: value for name, value in section(campaign).items() if name not in _IDS}
    ids = {packet.public_id for packet in Packet.objects.filter(campaign_link__campaign=copy)}
    assert {section(copy)[name] for name in _IDS} <= ids
    assert section(copy)["inviter_packet"] != section(campaign)["inviter_packet"]


def test_a_template_keeps_growth_and_leaves_out_a_reward_that_no_longer_serves() -> None:
    campaign = spreading()
    services.template_from_campaign(
        campaign_id=campaign.pk, slug="t", name_zh="模板", name_en="T", actor=stage.ACTOR
    )
    made = services.campaign_create_from_template(
        template="t", slug="from-t", client_apps=[stage.make_app().pk], starts_at=clock.now(),
        actor=stage.ACTOR,
    )  # fmt: skip
    assert growth(made).invitee_packet is not None

    bare = stage.draft()
    packet = stage.add_packet(bare)
    services.growth_unfold(
        campaign_id=bare.pk, document=fold(campaign), packets=[packet.pk, None],
        actor=stage.ACTOR,
    )  # fmt: skip
    assert growth(bare).inviter_packet is None and growth(bare).invitee_packet is None


_IDS = ("inviter_packet", "invitee_packet")
