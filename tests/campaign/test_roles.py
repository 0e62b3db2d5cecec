"""Role × act, as docs/roles.md says it: allowed and done, or refused and nothing changed.

Each act is pressed the way staff press it, by a request to the page that does it; whether its
button was shown doesn't matter to the request.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group as DjangoGroup
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models.functions import Now
from django.test import Client

from campaign import services
from campaign.models import (
    Campaign,
    CampaignChannel,
    CampaignGrowth,
    CampaignTemplate,
    TargetUpload,
    TopUp,
)
from campaign.people import GROUPS, RIGHTS, Act, Group, may
from campaign.versions import version_hash
from engine import forced
from engine.lib import clock
from engine.models import ForcedOutcome
from engine.run.paths import CHECKOUT
from packets.limit_rules import Wanted, limit_rule_set
from packets.models import (
    Difference,
    Gate,
    Hold,
    LimitRule,
    Packet,
    Participant,
    Payout,
    PayoutMark,
    ProviderAccount,
    ProviderChange,
    RiskRule,
    Statement,
)
from packets.payouts.manual import payout_mark_ask
from referrals.events.rules import Wanted as WantedTickets
from referrals.events.rules import ticket_rule_set
from referrals.models import Ban, TicketRule
from tests import wallets
from tests.admin import desk
from tests.campaign import stage
from tests.packets.holding import freeze, rule
from tests.packets.payouts.stage import payout_of, provider_account
from tests.packets.reconciling.stage import DAY, as_csv, compared, line

pytestmark = pytest.mark.django_db(transaction=True)

HOME = desk.HOME
PAYOUTS, PROVIDERS = "/admin/packets/payout/", "/admin/packets/provideraccount/"


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False


@dataclass
class Scene:
    """What an act is done to."""

    campaign: Campaign
    other: Any = None


def scene_draft() -> Scene:
    campaign = stage.draft()
    stage.add_packet(campaign)
    return Scene(stage.ready(campaign))


def scene_targeted() -> Scene:
    campaign = stage.draft()
    return Scene(campaign, stage.add_packet(campaign, targeted=True))


def scene_review() -> Scene:
    scene = scene_draft()
    services.campaign_submit(campaign_id=scene.campaign.pk, by=stage.member("operations", "zoe"))
    return scene


def scene_scheduled() -> Scene:
    return Scene(stage.scheduled())


def scene_live() -> Scene:
    return Scene(stage.live())


def scene_paused() -> Scene:
    scene = scene_live()
    services.campaign_pause(campaign_id=scene.campaign.pk, actor="x")
    return scene


def scene_ended() -> Scene:
    scene = scene_live()
    services.campaign_end(campaign_id=scene.campaign.pk, actor="x")
    return scene


def scene_asked() -> Scene:
    scene = scene_live()
    scene.other = services.top_up_request(
        campaign_id=scene.campaign.pk, extra_fen=500, reason="x", by=stage.member("operations", "z")
    )
    return scene


def scene_app() -> Scene:
    scene = scene_draft()
    app = scene.campaign.client_apps.get()
    forced.app_test_users_set(client_app_id=app.pk, allowed=True, actor="x")
    scene.other = app
    return scene


def step(act: str) -> Callable[[Client, Scene], Any]:
    return lambda client, scene: desk.step(client, scene.campaign, act, reason="why")


def press_create(client: Client, scene: Scene) -> Any:
    app = scene.campaign.client_apps.get()
    return client.post(f"{HOME}add/", desk.form(app, slug="made-by-hand"))


def press_edit(client: Client, scene: Scene) -> Any:
    app = scene.campaign.client_apps.get()
    packet = {"id": stage.first_packet(scene.campaign).pk}
    typed = desk.form(app, packet, slug=scene.campaign.slug, name_en="Changed")
    scene.campaign.refresh_from_db()
    typed["version"] = scene.campaign.version
    return client.post(f"{HOME}{scene.campaign.pk}/edit/", typed)


def press_upload(client: Client, scene: Scene) -> Any:
    app = scene.campaign.client_apps.get()
    file = SimpleUploadedFile("people.csv", b"alice\n")
    return client.post(
        f"{HOME}{scene.campaign.pk}/lists/",
        {"packet": scene.other.pk, "app": app.pk, "file": file},
    )


def press_template(client: Client, scene: Scene) -> Any:
    words = {"name_zh": "我的", "name_en": "Mine", "slug": "mine"}
    return client.post(f"{HOME}{scene.campaign.pk}/template/", words)


def press_approve(client: Client, scene: Scene) -> Any:
    read = version_hash(Campaign.objects.get(pk=scene.campaign.pk))
    words = {"then": "approve", "version_hash": read}
    return client.post(f"{HOME}{scene.campaign.pk}/review/", words)


def press_send_back(client: Client, scene: Scene) -> Any:
    words = {"then": "back", "reason": "look again"}
    return client.post(f"{HOME}{scene.campaign.pk}/review/", words)


def press_extend(client: Client, scene: Scene) -> Any:
    words = {"ends_at": desk.local(dt.timedelta(hours=5)), "reason": "more time"}
    return client.post(f"{HOME}{scene.campaign.pk}/extend/", words)


def press_ask(client: Client, scene: Scene) -> Any:
    words = {"extra": "5.00", "reason": "more", "typed": scene.campaign.slug}
    return client.post(f"{HOME}{scene.campaign.pk}/top-up/", words)


def press_decide(client: Client, scene: Scene) -> Any:
    words = {"then": "approve", "typed": scene.campaign.slug}
    return client.post(f"{HOME}top-up/{scene.other.pk}/", words)


def press_switch(client: Client, scene: Scene) -> Any:
    return client.post(f"{HOME}kill-switch/", {"on": "yes", "reason": "drill"})


def press_force(client: Client, scene: Scene) -> Any:
    words = {"client_app": scene.other.pk, "subject": "tester", "result": "won"}
    return client.post("/admin/engine/forcedoutcome/add/", words)


def press_limit(client: Client, scene: Scene) -> Any:
    rule = scene.other
    words = {
        "subject": "device", "measure": "claims", "method": "window", "most": "7",
        "window": "1", "unit": "3600", "timezone": "Asia/Shanghai", "when_away": "refuse",
    }  # fmt: skip
    return client.post(f"/admin/packets/limitrule/{rule.pk}/change/", words)


def press_growth(client: Client, scene: Scene) -> Any:
    return client.post(f"{HOME}{scene.campaign.pk}/growth/", desk.growth_form(inviter_cap="7"))


def press_ticket_rule(client: Client, scene: Scene) -> Any:
    rule = scene.other
    words = {
        "campaign": rule.campaign_id, "packet_id": rule.packet.public_id, "by": "daily",
        "a_day": "1", "in_all": "7", "is_active": "on",
    }  # fmt: skip
    return client.post(f"/admin/referrals/ticketrule/{rule.pk}/change/", words)


def scene_ticket_rule() -> Scene:
    scene = scene_draft()
    packet = stage.add_packet(scene.campaign, needs_ticket=True)
    daily = WantedTickets(campaign=scene.campaign, packet=packet, by="daily")
    scene.other = ticket_rule_set(wanted=daily, actor="x")
    return scene


def scene_limit() -> Scene:
    scene = scene_draft()
    wanted = Wanted(subject="device", limit=3, window_s=86_400)
    scene.other = limit_rule_set(wanted=wanted, actor="x")
    return scene


def press_channel(client: Client, scene: Scene) -> Any:
    words = {"way": "wechat:link:off", "reason": "the platform blocks it"}
    return client.post(f"/admin/referrals/sharelink/channels/{scene.campaign.pk}/", words)


def press_platform_rules(client: Client, scene: Scene) -> Any:
    address = f"{HOME}{scene.campaign.pk}/platform-rules/"
    return client.post(address, {"read": "wechat:1"})


def scene_hold() -> Scene:
    """A person's money waits for a decision."""
    scene = scene_live()
    app = scene.campaign.client_apps.get()
    wallets.fill(app, ["mallory"])
    who = wallets.digest(app, "mallory")
    scene.other = freeze(who, 100, scene.campaign.account_id)
    return scene


def press_release_hold(client: Client, scene: Scene) -> Any:
    return client.post(
        f"/admin/packets/hold/{scene.other.pk}/release/do/", {"reason": "looks fine"}
    )


def press_ban(client: Client, scene: Scene) -> Any:
    who = wallets.digest(scene.campaign.client_apps.get(), "mallory").hex()
    path = f"/admin/referrals/referral/person/{scene.campaign.pk}/{who}/ban/"
    return client.post(path, {"reason": "one phone, many people"})


def press_erase(client: Client, scene: Scene) -> Any:
    words = {"app": scene.campaign.client_apps.get().pk, "user": "ann", "reason": "by mail"}
    return client.post("/admin/referrals/referral/erase/", words)


def scene_somebody() -> Scene:
    scene = scene_live()
    app = scene.campaign.client_apps.get()
    Participant.objects.create(
        digest=wallets.digest(app, "ann"), client_app_id=app.pk, subject="ann"
    )
    return scene


def scene_risk_rule() -> Scene:
    scene = scene_draft()
    scene.other = rule(most=3)
    return scene


def press_risk_rule(client: Client, scene: Scene) -> Any:
    words = {
        "kind": "claims_per_person", "usual": "7", "window": "1", "unit": "3600",
        "is_active": "on", "note": "the gala",
    }  # fmt: skip
    return client.post(f"/admin/packets/riskrule/{scene.other.pk}/change/", words)


def scene_rain() -> Scene:
    campaign = stage.draft()
    soon = clock.now().replace(microsecond=0) + dt.timedelta(minutes=5)
    rain = services.rain_create(
        campaign_id=campaign.pk, actor="x", name_zh="红包雨", first_at=soon, rounds=1,
        interval_s=60, length_s=60, total_fen=1_000, count=10,
    )  # fmt: skip
    stage.launch(campaign)
    return Scene(campaign, rain.links.get().packet)


def press_move(client: Client, scene: Scene) -> Any:
    words = {"opens_at": desk.local(dt.timedelta(minutes=20)), "reason": "the gala is late"}
    return client.post(f"{HOME}{scene.campaign.pk}/round/{scene.other.pk}/", words)


def scene_payout() -> Scene:
    scene = scene_draft()
    waits = {"manual_reason": "review", "manual_at": Now(), "next_attempt_at": None}
    scene.other = payout_of(provider_account(), **waits)
    return scene


def scene_unknown() -> Scene:
    scene = scene_draft()
    scene.other = payout_of(
        provider_account(),
        state="unknown",
        step="query",
        manual_reason="too_long",
        manual_at=Now(),
        next_attempt_at=None,
    )
    scene.other.numbers.create(number="b" * 32, request_encrypted="", request_sha256="0" * 64)
    return scene


def scene_marked() -> Scene:
    scene = scene_unknown()
    payout_mark_ask(
        payout_id=scene.other.pk,
        outcome="failed",
        provider_ref="",
        evidence="x",
        by=stage.member("finance", "z"),
    )
    return scene


def scene_provider() -> Scene:
    scene = scene_draft()
    scene.other = provider_account()
    return scene


def scene_other_keys() -> Scene:
    scene = scene_provider()
    ProviderChange.objects.create(
        account=scene.other,
        base_url="https://pay.test/",
        credentials_encrypted=scene.other.credentials_encrypted,
        requested_by=stage.member("sre", "z"),
        reason="x",
    )
    return scene


def press_release(client: Client, scene: Scene) -> Any:
    return client.post(f"{PAYOUTS}{scene.other.pk}/do/release/", {"reason": "fine"})


def press_mark(client: Client, scene: Scene) -> Any:
    words = {"evidence": "seen", "provider_ref": "r"}
    return client.post(f"{PAYOUTS}{scene.other.pk}/do/mark-paid/", words)


def press_decide_mark(client: Client, scene: Scene) -> Any:
    mark = PayoutMark.objects.get(payout=scene.other)
    return client.post(f"{PAYOUTS}mark/{mark.pk}/", {"then": "approve"})


def press_breaker(client: Client, scene: Scene) -> Any:
    return client.post(f"{PROVIDERS}{scene.other.pk}/breaker/", {"reason": "drill"})


def press_decide_keys(client: Client, scene: Scene) -> Any:
    change = ProviderChange.objects.get(account=scene.other)
    return client.post(f"{PROVIDERS}change/{change.pk}/", {"then": "approve"})


def scene_difference() -> Scene:
    scene = scene_provider()
    compared(scene.other, line("STRANGE"))
    return scene


def press_statement(client: Client, scene: Scene) -> Any:
    file = SimpleUploadedFile("day.csv", as_csv(line("STRANGE")))
    words = {"account": scene.other.pk, "day": DAY.isoformat(), "file": file}
    return client.post("/admin/packets/statement/upload/", words)


def press_resolve(client: Client, scene: Scene) -> Any:
    one = Difference.objects.get()
    words = {"resolution": "not_ours", "reason": "the shop's till"}
    return client.post(f"/admin/packets/difference/{one.pk}/resolve/", words)


def is_now(*states: str) -> Callable[[Scene], bool]:
    return lambda scene: Campaign.objects.get(pk=scene.campaign.pk).state in states


def press_stop_people(client: Client, scene: Scene) -> Any:
    return client.post("/admin/packets/peoplepacket/gate/", {"reason": "why"})


@dataclass(frozen=True)
class Story:
    scene: Callable[[], Scene]
    press: Callable[[Client, Scene], Any]
    done: Callable[[Scene], bool]


STORIES: dict[Act, Story] = {
    Act.CREATE: Story(
        scene_draft,
        press_create,
        lambda scene: Campaign.objects.filter(slug="made-by-hand").exists(),
    ),
    Act.EDIT: Story(
        scene_draft,
        press_edit,
        lambda scene: Campaign.objects.get(pk=scene.campaign.pk).name_en == "Changed",
    ),
    Act.SUBMIT: Story(scene_draft, step("submit"), is_now("review")),
    Act.UPLOAD_TARGETS: Story(
        scene_targeted, press_upload, lambda scene: TargetUpload.objects.count() == 1
    ),
    Act.EDIT_TEMPLATES: Story(
        scene_draft,
        press_template,
        lambda scene: CampaignTemplate.objects.filter(slug="mine").exists(),
    ),
    Act.APPROVE: Story(scene_review, press_approve, is_now("live")),
    Act.SEND_BACK: Story(scene_review, press_send_back, is_now("draft")),
    Act.LAUNCH: Story(scene_scheduled, step("launch"), is_now("live")),
    Act.PAUSE: Story(scene_live, step("pause"), is_now("paused")),
    Act.RESUME: Story(scene_paused, step("resume"), is_now("live")),
    Act.KILL: Story(scene_live, step("kill"), is_now("killed")),
    Act.END: Story(scene_live, step("end"), is_now("ended")),
    Act.SETTLE: Story(scene_ended, step("settle"), is_now("settled")),
    Act.EXTEND: Story(
        scene_live,
        press_extend,
        lambda scene: Campaign.objects.get(pk=scene.campaign.pk).ends_at > scene.campaign.ends_at,
    ),
    Act.MOVE_ROUND: Story(
        scene_rain,
        press_move,
        lambda scene: Packet.objects.get(pk=scene.other.pk).opens_at > scene.other.opens_at,
    ),
    Act.REQUEST_TOP_UP: Story(
        scene_live, press_ask, lambda scene: TopUp.objects.filter(state="pending").exists()
    ),
    Act.APPROVE_TOP_UP: Story(
        scene_asked, press_decide, lambda scene: TopUp.objects.get().state == "approved"
    ),
    Act.SWITCH_ALL: Story(
        scene_live, press_switch, lambda scene: Gate.objects.get(key="all").state == "paused"
    ),
    Act.FORCE_OUTCOMES: Story(
        scene_app, press_force, lambda scene: ForcedOutcome.objects.count() == 1
    ),
    Act.SET_LIMITS: Story(
        scene_limit, press_limit, lambda scene: LimitRule.objects.get().limit == 7
    ),
    Act.SET_TICKET_RULES: Story(
        scene_ticket_rule, press_ticket_rule, lambda scene: TicketRule.objects.get().in_all == 7
    ),
    Act.STOP_PEOPLE: Story(
        scene_draft,
        press_stop_people,
        lambda scene: Gate.objects.get(key="people").state == "paused",
    ),
    Act.HANDLE_PAYOUT: Story(
        scene_payout, press_release, lambda scene: Payout.objects.get().manual_reason == ""
    ),
    Act.MARK_PAYOUT: Story(
        scene_unknown, press_mark, lambda scene: PayoutMark.objects.count() == 1
    ),
    Act.DECIDE_MARK: Story(
        scene_marked, press_decide_mark, lambda scene: Payout.objects.get().state == "failed"
    ),
    Act.CHANGE_PROVIDER: Story(
        scene_provider,
        press_breaker,
        lambda scene: ProviderAccount.objects.get().breaker == "open",
    ),
    Act.UPLOAD_STATEMENT: Story(
        scene_provider, press_statement, lambda scene: Statement.objects.count() == 1
    ),
    Act.RESOLVE_DIFFERENCE: Story(
        scene_difference, press_resolve, lambda scene: Difference.objects.get().state == "resolved"
    ),
    Act.DECIDE_PROVIDER: Story(
        scene_other_keys,
        press_decide_keys,
        lambda scene: ProviderAccount.objects.get().base_url == "https://pay.test/",
    ),
    Act.RESOLVE_HOLDS: Story(
        scene_hold, press_release_hold, lambda scene: Hold.objects.get().state == "released"
    ),
    Act.SET_GROWTH: Story(
        scene_draft,
        press_growth,
        lambda scene: CampaignGrowth.objects.filter(inviter_cap=7).count() == 1,
    ),
    Act.ACKNOWLEDGE_CHANNELS: Story(
        scene_draft,
        press_platform_rules,
        lambda scene: CampaignChannel.objects.filter(acknowledged_version=1).count() == 4,
    ),
    Act.SWITCH_CHANNEL: Story(
        scene_live,
        press_channel,
        lambda scene: CampaignChannel.objects.filter(vehicle="link", is_on=False).count() == 1,
    ),
    Act.BAN_PERSON: Story(
        scene_live, press_ban, lambda scene: Ban.objects.filter(lifted_at=None).count() == 1
    ),
    Act.ERASE_PERSON: Story(
        scene_somebody, press_erase, lambda scene: not Participant.objects.exists()
    ),
    Act.SET_RISK_RULES: Story(
        scene_risk_rule,
        press_risk_rule,
        lambda scene: (
            list(RiskRule.objects.order_by("version").values_list("version", "most"))
            == [(1, 3), (2, 7)]
        ),
    ),
}


def table() -> dict[str, dict[str, str]]:
    """docs/roles.md: act → column → cell."""
    text = (Path(CHECKOUT) / "docs" / "roles.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    head = [name.split()[0] if name else name for name in rows[0]]
    found = {}
    for row in rows[2:]:
        act = re.match(r"`(\w+)`", row[0])
        found[act[1] if act else row[0]] = dict(zip(head[1:], row[1:], strict=True))
    return found


def test_every_act_has_a_row_and_a_story() -> None:
    assert set(STORIES) == set(Act) == set(RIGHTS)
    assert {act for act in table() if act in set(Act)} == set(Act)


def test_the_groups_in_the_database_are_those_of_the_table() -> None:
    for group, rights in GROUPS.items():
        rows = DjangoGroup.objects.get(name=group).permissions.select_related("content_type")
        assert {f"{row.content_type.app_label}.{row.codename}" for row in rows} == rights
    for act, cells in table().items():
        if act not in set(Act):
            continue
        for group in Group:
            assert (cells[group] == "yes") == (RIGHTS[Act(act)].permission in GROUPS[group]), act
        assert RIGHTS[Act(act)].money == (cells["password"] == "yes"), act


def allowed_to(act: Act) -> set[Group]:
    return {group for group in Group if table()[act][group] == "yes"}


@pytest.mark.parametrize("act", list(Act))
def test_who_lacks_the_right_is_refused_and_nothing_changes(act: Act) -> None:
    """Every group without the right, and a stranger; then the act is still there to be done."""
    story = STORIES[act]
    scene = story.scene()
    clients = {group: desk.at_desk(group) for group in set(Group) - allowed_to(act)}
    before = stage.everything()

    for group, client in clients.items():
        assert story.press(client, scene).status_code == 403, group
        assert stage.everything() == before, group
    stranger = story.press(Client(), scene)
    assert stranger.status_code == 302 and stranger["Location"].startswith("/admin/login/")
    assert stage.everything() == before
    assert not story.done(scene)


@pytest.mark.parametrize(
    ("act", "group"), [(act, group) for act in Act for group in sorted(allowed_to(act))]
)
def test_who_has_the_right_does_it(act: Act, group: Group) -> None:
    story = STORIES[act]
    scene = story.scene()

    answer = story.press(desk.at_desk(group, f"{group}-2"), scene)

    assert answer.status_code == 302, answer.content.decode()[:3000]
    assert story.done(scene)


def test_nobody_who_left_or_is_no_staff_may_do_anything() -> None:
    gone, outside = stage.member("operations", "gone"), stage.member("operations", "outside")
    gone.is_active, outside.is_staff = False, False

    assert not any(may(user, act) for user in (gone, outside) for act in Act)


SEEN = {
    "see campaigns, packets and claims": [
        "campaign_campaign",
        "packets_packet",
        "packets_claim",
        "referrals_sharelink",
        "referrals_complaint",
    ],
    "see accounts, transfers and the audit log": [
        "packets_account",
        "packets_transfer",
        "engine_auditevent",
    ],
    "see payouts and provider accounts": ["packets_payout", "packets_provideraccount"],
    "see statements, differences and three-way checks": [
        "packets_statement",
        "packets_difference",
        "packets_stockcheck",
    ],
}


@pytest.mark.parametrize("group", list(Group))
def test_each_role_sees_exactly_what_its_table_says(group: Group) -> None:
    scene_live()
    client = desk.at_desk(group)
    for words, lists in SEEN.items():
        expected = 200 if table()[words][group] == "yes" else 403
        for name in lists:
            address = "/admin/{}/{}/".format(*name.split("_"))
            assert client.get(address).status_code == expected, address
