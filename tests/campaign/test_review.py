"""Two people for one campaign: handed in, read, approved, voided, sent back, started on time."""

from __future__ import annotations

import datetime as dt
from typing import Any
from unittest import mock

import pytest
from django.core import mail
from django.utils import translation

from campaign import selectors, services, versions
from campaign.models import Campaign, CampaignApproval, CampaignTemplate, Notice
from campaign.services.notices import notice_text
from campaign.tasks import campaign_clock
from engine.lib import clock
from engine.lib.errors import ServiceError, TransitionRefused
from packets import ledger
from packets.claiming.effects import Result
from packets.models import Gate, Packet
from tests import world
from tests.campaign import stage
from tests.campaign.test_services import refused

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = dt.timedelta(hours=1)


def later(**fields: Any) -> Campaign:
    """A draft with a packet, that starts in an hour."""
    now = clock.now()
    campaign = stage.draft(starts_at=now + HOUR, ends_at=now + 2 * HOUR, **fields)
    stage.add_packet(campaign)
    return stage.ready(campaign)


def approve(campaign: Campaign, by: str = "bob") -> Campaign:
    current = versions.version_hash(Campaign.objects.get(pk=campaign.pk))
    return services.campaign_approve(
        campaign_id=campaign.pk, version_hash=current, by=stage.member("approver", by)
    )


def notices(name: str) -> list[str]:
    return list(
        Notice.objects.filter(user__username=name).order_by("id").values_list("kind", flat=True)
    )


def test_ann_hands_in_bob_approves_and_it_starts_at_its_minute() -> None:
    stage.member("approver", "bob")
    campaign = later()

    stage.submit(campaign)
    assert notices("bob") == ["review_requested"]
    approve(campaign)

    assert Campaign.objects.get(pk=campaign.pk).state == "scheduled"
    assert notices("ann") == ["approved"]
    assert campaign_clock()["started"] == 0
    assert ledger.balance_fen(campaign.account_id) == 0
    with mock.patch(
        "campaign.tasks.now", return_value=campaign.starts_at - dt.timedelta(seconds=1)
    ):
        assert campaign_clock()["started"] == 0
    with mock.patch("campaign.tasks.now", return_value=campaign.starts_at):
        assert campaign_clock()["started"] == 1
    campaign.refresh_from_db()
    assert campaign.state == "live" and campaign.launched_at is not None
    assert Gate.objects.get(pk=campaign.gate_id).state == "open"
    assert stage.audited(campaign)[-3:] == [
        "campaign.submit",
        "campaign.approve",
        "campaign.launch",
    ]
    # Its packet opens with the campaign's window: who comes before it hears so.
    packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
    assert world.claim(packet, world.person("alice", app=app)).result is Result.NOT_STARTED


def test_a_campaign_whose_time_has_come_is_live_as_soon_as_it_is_approved() -> None:
    campaign = stage.draft()
    stage.add_packet(campaign)

    assert stage.approve(campaign).state == "live"


@pytest.mark.parametrize("role", ["creator", "last editor", "submitter"])
def test_nobody_approves_their_own_work(role: str) -> None:
    """Whatever rights they have: here everybody is in both groups."""
    bob = stage.member("approver", "bob")
    stage.member("operations", "ann")
    campaign = later(created_by=bob if role == "creator" else None)
    if role == "last editor":
        services.campaign_update(campaign_id=campaign.pk, actor="x", by=bob, name_en="Bob's")
    if role == "submitter":
        services.campaign_submit(campaign_id=campaign.pk, by=bob)
    else:
        stage.submit(campaign)
    read = versions.version_hash(Campaign.objects.get(pk=campaign.pk))

    refusal = refused(services.campaign_approve, campaign_id=campaign.pk, version_hash=read, by=bob)

    assert refusal.code == "own_work"
    assert approve(campaign, "carol").state == "scheduled"


def test_only_what_was_read_is_approved() -> None:
    campaign = later()
    stage.submit(campaign)

    refusal = refused(
        services.campaign_approve,
        campaign_id=campaign.pk,
        version_hash="0" * 64,
        by=stage.member("approver", "bob"),
    )

    assert (refusal.field, refusal.code) == ("version_hash", "changed_meanwhile")


def edits(campaign: Campaign) -> dict[str, Any]:
    packet = stage.first_packet(campaign)
    ann = stage.member("operations", "ann")
    here: dict[str, Any] = {"campaign_id": campaign.pk, "actor": "staff:ann", "by": ann}
    return {
        "text": lambda: services.campaign_update(rules_en="Other rules", **here),
        "budget": lambda: services.campaign_update(budget_fen=200_000, **here),
        "window": lambda: services.campaign_update(ends_at=campaign.ends_at + HOUR, **here),
        "apps": lambda: services.campaign_update(client_apps=[stage.make_app().pk], **here),
        "new packet": lambda: services.campaign_packet_add(total_fen=100, count=1, **here),
        "packet": lambda: services.campaign_packet_change(
            packet_id=packet.pk, total_fen=9_999, count=10, **here
        ),
        "gone packet": lambda: services.campaign_packet_remove(packet_id=packet.pk, **here),
    }


@pytest.mark.parametrize(
    "what", ["text", "budget", "window", "apps", "new packet", "packet", "gone packet"]
)
@pytest.mark.parametrize("state", ["review", "scheduled"])
def test_any_edit_voids_the_approval_and_the_approver_is_told(what: str, state: str) -> None:
    campaign = later()
    stage.submit(campaign)
    if state == "scheduled":
        approve(campaign)
    before = versions.version_hash(campaign)

    edits(campaign)[what]()

    assert Campaign.objects.get(pk=campaign.pk).state == "draft"
    assert versions.version_hash(Campaign.objects.get(pk=campaign.pk)) != before
    assert not CampaignApproval.objects.filter(revoked_at=None).exists()
    assert notices("bob").count("approval_voided") == int(state == "scheduled")
    assert stage.audited(campaign).count("campaign.approval_void") == 1
    refused(services.campaign_launch, campaign_id=campaign.pk, actor="x")


def test_writing_the_same_again_is_no_edit() -> None:
    campaign = later()
    stage.submit(campaign)
    approve(campaign)
    before = stage.everything()

    services.campaign_update(
        campaign_id=campaign.pk, actor="x", budget_fen=campaign.budget_fen, name_zh=campaign.name_zh
    )

    assert stage.everything() == before


def test_an_edit_of_an_older_look_is_refused() -> None:
    campaign = later()
    services.campaign_update(campaign_id=campaign.pk, actor="x", name_en="One")

    refusal = refused(
        services.campaign_update,
        campaign_id=campaign.pk,
        actor="x",
        version=campaign.version,
        name_en="Two",
    )

    assert refusal.code == "changed_meanwhile"


def test_bob_sends_it_back_with_a_reason_and_ann_hears_it() -> None:
    campaign = later()
    stage.submit(campaign)
    bob = stage.member("approver", "bob")
    assert (
        refused(services.campaign_send_back, campaign_id=campaign.pk, by=bob, reason=" ").field
        == "reason"
    )

    services.campaign_send_back(campaign_id=campaign.pk, by=bob, reason="the odds are wrong")

    assert Campaign.objects.get(pk=campaign.pk).state == "draft"
    told = Notice.objects.get(user__username="ann")
    with translation.override("en"):
        assert notice_text(told) == f"bob sends {campaign.slug} back: the odds are wrong"


@pytest.mark.parametrize(
    ("lacks", "field", "code"),
    [
        ({"rules_zh": ""}, "rules_zh", "blank"),
        ({"odds_zh": ""}, "odds_zh", "blank"),
        ({"no packet": True}, "packets", "blank"),
        ({"no list": True}, "targets", "blank"),
        ({"ends_at": "past"}, "ends_at", "in_the_past"),
    ],
)
def test_what_is_missing_is_named_when_it_is_handed_in(
    lacks: dict[str, Any], field: str, code: str
) -> None:
    campaign = stage.ready(stage.draft())
    if "no list" in lacks:
        stage.add_packet(campaign, targeted=True)
    elif "no packet" not in lacks:
        stage.add_packet(campaign, 10_000, 100, strategy="tiers", tiers=[(1_000, 2)])
    columns = {name: value for name, value in lacks.items() if "no " not in name}
    if "ends_at" in columns:
        columns = {"ends_at": clock.now() - dt.timedelta(seconds=1)}
    Campaign.objects.filter(pk=campaign.pk).update(**columns)

    refusal = refused(
        services.campaign_submit, campaign_id=campaign.pk, by=stage.member("operations", "ann")
    )

    assert (refusal.field, refusal.code) == (field, code)


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"strategy": "tiers", "tiers": [(5_000_001, 1)]}, "tiers"),
        ({"strategy": "lucky"}, "max_fen"),
        ({"strategy": "double_mean", "max_fen": 5_000_001}, "max_fen"),
        ({"strategy": "tiers", "tiers": [(100, 99)], "remainder": "double_mean"}, "max_fen"),
        # Equal portions for all who draw no prize are a prize too: here a grand one.
        ({"strategy": "tiers", "tiers": [(100, 99)], "remainder": "fixed"}, "max_fen"),
        ({"strategy": "lucky", "needs_ticket": True}, "max_fen"),
    ],
)
def test_no_prize_by_chance_is_above_the_legal_ceiling(rules: dict[str, Any], field: str) -> None:
    campaign = stage.draft(budget_fen=20_000_000)

    refusal = refused(
        services.campaign_packet_add,
        campaign_id=campaign.pk,
        actor="x",
        total_fen=20_000_000,
        count=100,
        **rules,
    )

    assert (refusal.field, refusal.code) == (field, "prize_above_cap")
    assert "¥50,000.00" in refusal.message
    # The same money without chance, or with a largest portion, is nobody's lottery.
    packet = stage.add_packet(campaign, 20_000_000, 2, strategy="fixed")
    # Nor can a change make one of it, a top-up bring one, or a row get past the review.
    changed = {"total_fen": 20_000_000, "count": 100, "actor": "x", **rules}
    refusal = refused(
        services.campaign_packet_change,
        campaign_id=campaign.pk,
        packet_id=packet.pk,
        **changed,
    )
    assert (refusal.field, refusal.code) == (field, "prize_above_cap")
    Packet.objects.filter(pk=packet.pk).update(
        **{"count": 100, **{name: value for name, value in rules.items() if name != "needs_ticket"}}
    )
    stage.ready(campaign)
    refusal = refused(
        services.campaign_submit, campaign_id=campaign.pk, by=stage.member("operations", "ann")
    )
    assert (refusal.field, refusal.code) == (field, "prize_above_cap")


def test_a_top_up_brings_no_prize_above_the_legal_ceiling() -> None:
    campaign = stage.live()
    refusal = refused(
        services.top_up_request,
        campaign_id=campaign.pk,
        extra_fen=20_000_000,
        reason="x",
        packets=[{"total_fen": 20_000_000, "count": 10}],
        by=stage.member("operations", "ann"),
    )
    assert (refusal.field, refusal.code) == ("max_fen", "prize_above_cap")


def test_an_approved_campaign_that_cannot_start_goes_back_and_says_why() -> None:
    campaign = later()
    stage.submit(campaign)
    approve(campaign)
    past = clock.now() - dt.timedelta(seconds=1)
    Campaign.objects.filter(pk=campaign.pk).update(starts_at=past - HOUR)  # by hand, behind us

    assert campaign_clock()["refused"] == 1

    campaign.refresh_from_db()
    assert campaign.state == "draft"
    assert notices("bob")[-1] == notices("ann")[-1] == "launch_refused"
    assert ledger.balance_fen(campaign.account_id) == 0
    assert campaign_clock()["refused"] == 0


# --- what runs is changed in its people's favour only


def test_a_launched_version_cannot_be_changed() -> None:
    campaign = stage.live()
    packet = stage.first_packet(campaign)
    here: dict[str, Any] = {"campaign_id": campaign.pk, "actor": "x"}
    for act, arguments in [
        (services.campaign_update, {"name_zh": "别的"}),
        (services.campaign_update, {"ends_at": campaign.ends_at - dt.timedelta(minutes=5)}),
        (services.campaign_packet_add, {"total_fen": 100, "count": 1}),
        (services.campaign_packet_change, {"packet_id": packet.pk, "total_fen": 100, "count": 1}),
        (services.campaign_packet_remove, {"packet_id": packet.pk}),
    ]:
        assert isinstance(refused(act, **here, **arguments), TransitionRefused)
    earlier = campaign.ends_at - dt.timedelta(minutes=5)
    assert refused(services.campaign_extend, ends_at=earlier, **here).code == "not_later"


def test_a_later_end_moves_the_packets_that_end_with_it() -> None:
    campaign = stage.live()
    packet = stage.first_packet(campaign)
    end = campaign.ends_at + HOUR

    services.campaign_extend(campaign_id=campaign.pk, ends_at=end, actor="staff:ann")

    packet.refresh_from_db()
    assert packet.closes_at == Campaign.objects.get(pk=campaign.pk).ends_at == end
    assert CampaignApproval.objects.filter(revoked_at=None).count() == 1


def test_a_top_up_needs_another_person_and_brings_money_and_packets() -> None:
    campaign = stage.live(budget_fen=10_000)
    ann, bob = stage.member("operations", "ann"), stage.member("approver", "bob")
    asked = services.top_up_request(
        campaign_id=campaign.pk,
        extra_fen=7_000,
        packets=[{"total_fen": 5_000, "count": 5, "name": "second"}],
        reason="so many people",
        by=ann,
    )
    assert ledger.balance_fen(campaign.account_id) == 0  # asking moves nothing
    assert Packet.objects.count() == 1
    assert refused(services.top_up_approve, top_up_id=asked.pk, by=ann).code == "own_work"
    assert (
        refused(
            services.top_up_request, campaign_id=campaign.pk, extra_fen=1, reason="x", by=bob
        ).code
        == "pending"
    )

    services.top_up_approve(top_up_id=asked.pk, by=bob)

    second = Packet.objects.get(name="second")
    assert (second.state, Campaign.objects.get(pk=campaign.pk).budget_fen) == ("open", 17_000)
    assert ledger.balance_fen(campaign.account_id) == 2_000
    app = campaign.client_apps.get().pk
    assert world.claim(second, world.person("alice", app=app)).result is Result.WON
    assert notices("ann")[-1] == "top_up_decided"
    refused(services.top_up_approve, top_up_id=asked.pk, by=bob)


def test_a_top_up_is_refused_or_withdrawn_without_a_trace_in_the_books() -> None:
    campaign = stage.live(budget_fen=10_000)
    ann, bob = stage.member("operations", "ann"), stage.member("approver", "bob")

    def ask() -> int:
        return services.top_up_request(
            campaign_id=campaign.pk, extra_fen=500, reason="x", by=ann
        ).pk

    one = ask()
    assert refused(services.top_up_withdraw, top_up_id=one, by=bob).code == "not_yours"
    services.top_up_reject(top_up_id=one, by=bob, reason="no money left")
    services.top_up_withdraw(top_up_id=ask(), by=ann)

    assert ledger.balance_fen(campaign.account_id) == 0
    assert Campaign.objects.get(pk=campaign.pk).budget_fen == 10_000


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"extra_fen": 0}, "extra_fen"),
        ({"extra_fen": -5}, "extra_fen"),
        ({"extra_fen": 2**53}, "extra_fen"),
        ({"extra_fen": 5, "reason": " "}, "reason"),
        ({"extra_fen": 5, "packets": [{"total_fen": 6, "count": 1}]}, "budget_fen"),
        ({"extra_fen": 5, "packets": [{"total_fen": 5, "count": 0}]}, "count"),
        ({"extra_fen": 5, "packets": [{"total_fen": 5, "count": 1, "targeted": True}]}, "targeted"),
        ({"extra_fen": 5, "packets": [{"total_fen": 5, "count": 1, "password": "x"}]}, "password"),
    ],
)
def test_a_top_up_that_makes_no_sense_is_refused_when_it_is_asked(
    asked: dict[str, Any], field: str
) -> None:
    campaign = stage.live(budget_fen=10_000)
    asked = {"reason": "x", **asked}
    who = stage.member("operations", "ann")

    refusal = refused(services.top_up_request, campaign_id=campaign.pk, by=who, **asked)

    assert refusal.field == field


# --- templates and copies


def test_every_template_makes_a_campaign_that_can_be_handed_in() -> None:
    app, start = stage.make_app(), clock.now() + HOUR
    slugs = list(CampaignTemplate.objects.values_list("slug", flat=True))
    assert slugs == ["group-lucky", "pool-with-prizes", "red-packet-rain", "newcomers-fixed"]
    for slug in slugs:
        campaign = services.campaign_create_from_template(
            template=slug, slug=f"my-{slug}", client_apps=[app.pk], starts_at=start, actor="x"
        )
        submitted = services.campaign_submit(
            campaign_id=campaign.pk, by=stage.member("operations", "ann")
        )
        assert submitted.state == "review"
    rain = Packet.objects.filter(campaign_link__campaign__slug="my-red-packet-rain")
    assert [
        ((packet.opens_at - start) / HOUR, (packet.closes_at - packet.opens_at).seconds)
        for packet in rain.order_by("opens_at")
    ] == [(hour, 600) for hour in range(5)]


def test_a_copy_is_like_its_original_but_for_its_name_time_and_approval() -> None:
    campaign = stage.draft(budget_fen=50_000, name_en="Spring")
    stage.add_packet(campaign, 10_000, 10, name="one", password="恭喜发财", new_only=True)
    stage.launch(campaign)
    start = clock.now() + HOUR

    copy = services.campaign_copy(
        campaign_id=campaign.pk, slug="again", starts_at=start, actor="staff:ann"
    )

    assert (copy.state, copy.slug, copy.starts_at) == ("draft", "again", start)
    assert (copy.name_en, copy.budget_fen) == ("Spring", 50_000)
    packet = stage.first_packet(copy)
    assert (packet.name, packet.total_fen, packet.new_only) == ("one", 10_000, True)
    assert (packet.opens_at, packet.closes_at) == (copy.starts_at, copy.ends_at)
    original = stage.first_packet(campaign)
    assert packet.commitment != original.commitment  # another seed
    assert not copy.approvals.exists()
    # The pass phrase came along, though only its digest can be read of the packet itself.
    stage.approve(copy)
    services.campaign_launch(campaign_id=copy.pk, actor="x")
    Packet.objects.filter(pk=packet.pk).update(opens_at=clock.now())
    app = copy.client_apps.get().pk
    alice = world.person("alice", app=app, is_new=True)
    world.forget_views()
    assert world.claim(packet, alice, password="wrong").result is Result.WRONG_PASSWORD


def test_a_campaign_becomes_a_template() -> None:
    campaign = later()
    services.template_from_campaign(
        campaign_id=campaign.pk, slug="mine", name_zh="我的", name_en="Mine", actor="x"
    )

    made = services.campaign_create_from_template(
        template="mine",
        slug="from-mine",
        client_apps=[stage.make_app().pk],
        starts_at=clock.now(),
        actor="x",
    )

    assert stage.first_packet(made).total_fen == 10_000
    assert refused(
        services.template_from_campaign,
        campaign_id=campaign.pk, slug="mine", name_zh="二", name_en="Two", actor="x",
    ).code == "taken"  # fmt: skip


def test_the_next_approver_sees_what_changed() -> None:
    campaign = later()
    stage.submit(campaign)
    approve(campaign)
    services.campaign_update(campaign_id=campaign.pk, actor="x", budget_fen=200_000)
    campaign.refresh_from_db()

    changes = selectors.campaign_changes(campaign)

    assert changes == [versions.Change(None, "budget_fen", 100_000, 200_000)]


def test_notices_are_mailed_once_where_mail_is_configured(settings: Any) -> None:
    bob = stage.member("approver", "bob")
    bob.email = "bob@example.com"
    bob.save()
    stage.submit(later())
    assert services.notices_mail_due(limit=10) == 0  # no host, no letter
    settings.EMAIL_HOST = "mail.example.com"

    assert services.notices_mail_due(limit=10) == 1
    assert services.notices_mail_due(limit=10) == 0
    assert [letter.to for letter in mail.outbox] == [["bob@example.com"]]


def test_notices_are_read_up_to_the_newest_that_was_shown() -> None:
    bob = stage.member("approver", "bob")
    for _ in range(2):
        stage.submit(later())
    shown = services.notices_unread(bob)
    stage.submit(later())

    services.notices_read(user=bob, up_to=shown[0].pk)

    assert len(services.notices_unread(bob)) == 1


def test_refusals_are_said_in_the_readers_language() -> None:
    campaign = stage.live()
    with pytest.raises(ServiceError) as refusal:
        services.campaign_launch(campaign_id=campaign.pk, actor="x")

    with translation.override("en"):
        english = refusal.value.message
    with translation.override("zh-hans"):
        chinese = refusal.value.message
    assert english == f"{campaign.slug} is live; this needs it to be scheduled"
    assert chinese != english
