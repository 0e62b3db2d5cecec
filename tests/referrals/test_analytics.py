"""Growth figures against a small world that is counted by hand.

Shanghai's calendar, days relative to the day C of the claims (which happen now; everything else has
its time said):

    ann   came by herself on -10, seen on -9; WeChat link
    bob   by ann on -7, claims on C; QQ link
    cem   by ann on -1, claims on C
    dee   by bob on -7 two hours later, seen on -6; QQ link
    eve   by dee on -6; in a risk case
    fay   came by herself on C, by a claim

ann, bob, cem, fay won 100 fen each; ann and dee were rewarded with 50 for bob and eve. Two days
after now is when it is counted.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import uuid
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F

from campaign import board
from campaign.models import Campaign, CampaignGrowth, CampaignPacket, Channel
from engine.lib.ids import participant_digest
from packets import ledger, settlement
from packets.models import Gate, Packet, PeoplePacket, Transfer
from referrals.analytics import crowd, reading, report, snapshots, spread
from referrals.linking import codes
from referrals.models import (
    GrowthSnapshot,
    Qualification,
    Referral,
    Reward,
    RiskCase,
    RiskMember,
    ServerEvent,
    ShareLink,
    SnapshotDue,
    Visit,
)
from referrals.tasks import growth_snapshots
from tests.admin import desk
from tests.campaign import stage
from tests.factories import Funding, make_claims, make_packet

pytestmark = pytest.mark.django_db

ZONE = ZoneInfo("Asia/Shanghai")
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


@dataclass
class Small:
    """The world, with its people by their names."""

    campaign: Campaign
    app: int
    now: dt.datetime

    def who(self, name: str) -> bytes:
        return participant_digest(self.app, name)

    def noon(self, day: int) -> dt.datetime:
        noon = dt.datetime.combine(self.now.astimezone(ZONE).date(), dt.time(12), ZONE)
        return noon + day * DAY

    def packet(self, portion_fen: int, **fields: Any) -> Packet:
        account = self.campaign.account
        packet = make_packet(portion_fen=portion_fen, funding=Funding(account, self.campaign.gate))
        Packet.objects.filter(pk=packet.pk).update(**fields)
        order = CampaignPacket.objects.filter(campaign=self.campaign).count() + 1
        CampaignPacket.objects.create(campaign=self.campaign, packet=packet, order=order)
        return packet

    def link(self, name: str, channel: str, at: dt.datetime) -> ShareLink:
        return ShareLink.objects.create(
            campaign=self.campaign,
            participant=self.who(name),
            client_app_id=self.app,
            channel=channel,
            code=codes.draw(),
            created_at=at,
        )

    def edge(self, name: str, link: ShareLink, at: dt.datetime, qualified: str = "") -> Referral:
        parent = Referral.objects.filter(invitee=bytes(link.participant)).first()
        edge = Referral.objects.create(
            campaign=self.campaign,
            client_app_id=self.app,
            invitee=self.who(name),
            inviter=bytes(link.participant),
            link=link,
            parent=parent,
            root=parent.root if parent else bytes(link.participant),
            depth=parent.depth + 1 if parent else 1,
            source=Referral.Source.CODE,
            bound_at=at,
        )
        Qualification.objects.filter(referral=edge).update(qualified_by=qualified)
        return edge

    def claims(self, packet: Packet, *names: str) -> list[Any]:
        lane = packet.lanes.get()
        return make_claims(lane, len(names), participants=[self.who(name) for name in names])

    def seen(
        self, name: str, at: dt.datetime, kind: str = "active", campaign: Campaign | None = None
    ) -> None:
        ServerEvent.objects.create(
            client_app_id=self.app,
            key=f"{name}:{at}",
            participant=self.who(name),
            kind=kind,
            campaign=campaign,
            at=at,
        )

    def visits(self, link: ShareLink, *vehicles: str) -> None:
        for vehicle in vehicles:
            Visit.objects.create(
                link=link, campaign=self.campaign, vehicle=vehicle, click_id=uuid.uuid4()
            )

    def reward(self, edge: Referral, packet: Packet, name: str) -> None:
        [claim] = self.claims(packet, name)
        Reward.objects.create(
            referral=edge,
            side="inviter",
            participant=self.who(name),
            state="granted",
            claim=claim,
            qualified_by="claim",
        )


def empty() -> Small:
    """A live campaign of a month that nobody knows yet."""
    campaign = stage.draft(budget_fen=100_000)
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")  # this test's transaction: the moment of all its claims
        (now,) = cursor.fetchone()
    ledger.post(
        [
            ledger.Entry(
                f"fund:{campaign.pk.hex}",
                Transfer.Kind.FUND,
                ledger.external_account().id,
                campaign.account_id,
                100_000,
            )
        ]
    )
    Gate.objects.filter(pk=campaign.gate_id).update(state="open")
    Campaign.objects.filter(pk=campaign.pk).update(
        state="live",
        starts_at=now - 15 * DAY,
        launched_at=now - 15 * DAY,
        created_at=now - 16 * DAY,
        ends_at=now + 15 * DAY,
    )
    campaign = Campaign.objects.select_related("account", "gate").get(pk=campaign.pk)
    CampaignGrowth.objects.create(campaign=campaign)
    return Small(campaign, int(campaign.client_apps.get().pk), now)


@pytest.fixture
def small() -> Small:
    world = empty()
    everybody, rewards = world.packet(100), world.packet(50, needs_ticket=False)
    CampaignGrowth.objects.filter(campaign=world.campaign).update(inviter_packet=rewards)
    ann = world.link("ann", Channel.WECHAT, world.noon(-10))
    bob = world.link("bob", Channel.QQ, world.noon(-7) + HOUR)
    dee = world.link("dee", Channel.QQ, world.noon(-7) + 3 * HOUR)
    by_ann = world.edge("bob", ann, world.noon(-7), "claim")
    world.edge("cem", ann, world.noon(-1), "claim")
    world.edge("dee", bob, world.noon(-7) + 2 * HOUR)
    by_dee = world.edge("eve", dee, world.noon(-6), "claim")
    case = RiskCase.objects.create(campaign=world.campaign, score=90)
    RiskMember.objects.create(case=case, campaign=world.campaign, participant=world.who("eve"))
    world.claims(everybody, "ann", "bob", "cem", "fay")
    world.reward(by_ann, rewards, "ann")
    world.reward(by_dee, rewards, "dee")
    world.seen("ann", world.noon(-9))
    world.seen("dee", world.noon(-6), "mission_done")
    world.seen("eve", world.noon(-5), "opened_a_page")  # a word of the app's own says nothing
    world.visits(ann, "link", "link", "qr")
    world.visits(bob, "link")
    return world


def counted(world: Small, after: dt.timedelta = 2 * DAY) -> dict[str, dict[str, Any]]:
    return report.report(world.campaign, world.now + after)


def test_the_funnel_counts_people_by_the_channel_they_came_by(small: Small) -> None:
    funnel = counted(small)["funnel"]

    wechat, qq = funnel["channels"]
    assert wechat == {
        "channel": "wechat",
        "links": 1,
        "visits": 3,
        "vehicles": {"link": 2, "qr": 1},
        "joined": 2,
        "claimed": 2,
        "shared": 1,
        "brought": 1,
    }
    assert {name: qq[name] for name in ("links", "visits", "joined", "claimed")} == {
        "links": 2, "visits": 1, "joined": 2, "claimed": 0,
    }  # fmt: skip
    assert (qq["shared"], qq["brought"]) == (1, 1)
    assert (funnel["people"], funnel["invited"]) == (6, 4)
    assert (funnel["cold_claimed"], funnel["cold_shared"], funnel["one_in"]) == (2, 1, 1)


def test_k_is_of_cohorts_whose_window_is_over(small: Small) -> None:
    found = counted(small)["spread"]

    assert found["windows_s"] == [86_400, 7 * 86_400]
    # Within a day: dee for bob, eve for dee, of six people. Within a week bob for ann too; cem and
    # fay joined less than a week before the end.
    assert found["k"] == [round(2 / 6, 4), 3 / 4]
    assert found["k_unsuspected"] == [1 / 5, round(2 / 3, 4)]
    days = [small.noon(day).strftime("%Y-%m-%d") for day in (-10, -7, -6, -1, 0)]
    assert [one["start"] for one in found["cohorts"]] == days
    assert [one["people"] for one in found["cohorts"]] == [1, 2, 1, 1, 1]
    assert [one["friends"] for one in found["cohorts"]] == [[0, 1], [2, 2], [0, 0], [0, 0], [0, 0]]
    assert [one["closed"] for one in found["cohorts"]] == [[True, True]] * 3 + [[True, False]] * 2


def test_cycle_times_and_cascades(small: Small) -> None:
    found = counted(small)["spread"]

    # 2, 22, 72 and 216 hours.
    assert found["cycle"] == {"friends": 4, "median_s": 47 * 3600.0, "p90_s": 172.8 * 3600}
    shape = {name: found[name] for name in ("trees", "in_trees", "invited", "largest", "deepest")}
    assert shape == {"trees": 1, "in_trees": 5, "invited": 4, "largest": 5, "deepest": 3}
    assert (found["by_depth"], found["beyond_first"], found["broadest"]) == ([1, 2, 1, 1], 0.5, 2)
    assert found["virality"] == found["virality_of_largest"] == 2.0
    assert [number for _low, number in found["sizes"]] == [0, 1, 0, 0, 0, 0, 0, 0]
    assert found["suspects"] == 1


def test_who_was_seen_on_day_one_seven_and_thirty(small: Small) -> None:
    found = counted(small)["retention"]

    # cem claimed on day 1, dee did a mission; bob claimed on day 7. What was claimed for dee on
    # their day 7 is a reward, no sign of life. Of cem day 7 isn't over.
    assert found["invited"] == [
        {"day": 1, "people": 4, "seen": 2, "young": 0},
        {"day": 7, "people": 3, "seen": 1, "young": 1},
        {"day": 30, "people": 0, "seen": 0, "young": 4},
    ]
    assert found["cold"] == [
        {"day": 1, "people": 2, "seen": 1, "young": 0},
        {"day": 7, "people": 1, "seen": 0, "young": 1},
        {"day": 30, "people": 0, "seen": 0, "young": 2},
    ]
    assert (found["invited_all"], found["cold_all"], found["reports"]) == (4, 2, True)


def test_what_each_who_came_and_each_who_stays_has_cost(small: Small) -> None:
    lane = Packet.objects.filter(campaigns=small.campaign).earliest("created_at").lanes.get()
    settlement.settle_lane(lane.pk)
    found = counted(small)["cost"]

    assert (found["spent_fen"], found["rewards_fen"]) == (500, 100)
    assert (found["paid_fen"], found["unsettled_fen"], found["held_fen"]) == (400, 100, 0)
    # bob and cem; eve is a suspect, though paid for, and dee has earned nothing yet.
    assert found["sides"]["invited"] == {
        "fen": 300,
        "acquired": 2,
        "per_acquired_fen": 150,
        "per_retained_fen": [
            {"day": 1, "fen": 300}, {"day": 7, "fen": 450}, {"day": 30, "fen": None}
        ],
    }  # fmt: skip
    assert found["sides"]["cold"]["per_acquired_fen"] == 100
    assert [one["fen"] for one in found["sides"]["cold"]["per_retained_fen"]] == [200, None, None]
    assert (found["acquired"], found["per_acquired_fen"], found["suspects"]) == (4, 125, 1)


@pytest.mark.parametrize("rows", [1, 2])
def test_small_ranges_give_the_same_figures(
    small: Small, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    for channel in (Channel.MOMENTS, Channel.SMS):
        small.link("ann", channel, small.noon(-9))
    monkeypatch.setattr(board, "now", lambda: small.now)  # the burn is told as of this moment
    whole = counted(small)

    monkeypatch.setattr(reading, "ROWS_A_RANGE", rows)

    assert counted(small) == whole


def test_what_came_after_the_moment_is_left_out(small: Small) -> None:
    before = report.report(small.campaign, small.noon(-1) - HOUR)

    assert before["funnel"]["invited"] == 3
    assert before["cost"]["acquired"] == 2, "bob and eve, whom nobody suspects yet"
    assert before["retention"]["cold_all"] == 1, "fay hasn't come yet"


def test_whoever_an_app_reports_as_joined_is_a_person(small: Small) -> None:
    small.seen("gil", small.noon(-3), "joined", campaign=small.campaign)
    small.seen("ann", small.noon(-11), "joined", campaign=small.campaign)
    small.seen("hal", small.noon(-3), "joined")  # somewhere else

    found = counted(small)

    assert found["funnel"]["people"] == 7
    assert found["spread"]["cycle"]["p90_s"] == 196.8 * 3600, "ann came earlier"


def test_a_packet_that_paid_rewards_once_still_counts_as_rewards(small: Small) -> None:
    Packet.objects.filter(campaigns=small.campaign).update(needs_ticket=True)
    CampaignGrowth.objects.update(inviter_packet=None)

    found = counted(small)

    assert found["cost"]["rewards_fen"] == 100
    assert found["retention"]["cold_all"] == 2


def test_of_too_many_claims_a_fair_sample_of_people_is_read(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "CLAIMS_MAX", 2)

    found = crowd.crowd_of(small.campaign, small.now + DAY)

    assert found.one_in == 2
    claimed = {name for name in ("ann", "bob", "cem", "fay") if small.who(name)[0] < 128}
    assert found.claimed.sum() == len(claimed)
    assert found.scaled(found.claimed) == 2 * len(claimed)
    assert found.invited.sum() == 4, "the forest is always whole"
    known = {small.who(name) for name in ("ann", "bob", "cem", "dee", "eve")}
    everybody = found.digests(crowd.np.arange(found.size))
    assert set(everybody) == known | {small.who(name) for name in claimed}


def test_chat_groups_that_fell_silent() -> None:
    world = empty()
    ours, sent = world.packet(100, group="village"), world.packet(100, group="office")
    CampaignPacket.objects.filter(packet=sent).delete()
    Packet.objects.filter(pk=sent.pk).update(client_apps=[world.app])
    PeoplePacket.objects.create(packet=sent, participant=world.who("sue"), key="k")
    world.claims(ours, "ann", "bob")
    world.claims(sent, "cem")
    world.seen("bob", world.noon(1))
    world.seen("bob", world.noon(8))

    found = counted(world, 10 * DAY)["groups"]

    assert (found["known"], found["silent"], found["complete"]) == (2, 1, True)
    village, office = found["groups"]
    assert (village["group"], village["people"], village["recent"], village["silent"]) == (
        "village", 2, 1, False,
    )  # fmt: skip
    assert [(one["people"], one["seen"]) for one in village["days"]] == [(2, 1), (2, 0), (0, 0)]
    assert (office["group"], office["people"], office["silent"]) == ("office", 1, True)
    fresh = counted(world, 6 * DAY)["groups"]
    assert fresh["silent"] == 0, "nobody is silent before there was time for it"


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        ("2027-03-28T00:59:59+01:00", "2027-03-28"),
        ("2027-03-28T23:30:00+02:00", "2027-03-28"),  # an hour was skipped that night
        ("2027-10-31T23:30:00+01:00", "2027-10-31"),  # and one was doubled
    ],
)
def test_days_are_the_calendars_of_the_campaigns_zone(moment: str, day: str) -> None:
    at_s = crowd.np.array([dt.datetime.fromisoformat(moment).timestamp()])
    [found] = spread.day_of(at_s, ZoneInfo("Europe/Berlin"))
    assert dt.date(1970, 1, 1) + dt.timedelta(int(found)) == dt.date.fromisoformat(day)


def test_nobody_yet() -> None:
    found = counted(empty(), HOUR)

    assert found["funnel"]["channels"] == []
    assert (found["spread"]["k"], found["spread"]["cohorts"]) == ([None, None], [])
    assert (found["spread"]["cycle"]["median_s"], found["spread"]["beyond_first"]) == (None, None)
    assert found["cost"]["per_acquired_fen"] is None
    assert found["retention"]["reports"] is False


# --- the pages ------------------------------------------------------------------------------------

PAGES = "/admin/referrals/growthsnapshot/"


def shown(client: Any, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_the_page_shows_what_was_counted_and_how_fresh_it_is(small: Small, language: str) -> None:
    client = desk.at_desk("operations")
    client.cookies["laisee_language"] = language
    address = f"{PAGES}{small.campaign.pk}/"
    assert "data-uncounted" in shown(client, address)
    growth_snapshots()

    html = shown(client, address)

    assert "data-fresh" in html and 'class="ls-note is-bad"' not in html
    assert ("再次分享" in html, "Shared on" in html) == (language == "zh-hans", language == "en")
    assert html.count("data-chart") == 6, "two of K, sizes, depths, who comes back, the burn"
    assert html.count("data-open") >= 1, "fay's cohort is a day old at most"
    for figure in ("¥1.25", "¥3.00", "50.0 %"):
        assert figure in html, figure
    assert small.campaign.slug in shown(client, PAGES)
    detail = shown(client, f"/admin/campaign/campaign/{small.campaign.pk}/change/")
    assert address in detail


def test_old_figures_say_that_nobody_counts(small: Small) -> None:
    growth_snapshots()
    GrowthSnapshot.objects.update(until_at=F("until_at") - HOUR)
    html = shown(desk.at_desk("support"), f"{PAGES}{small.campaign.pk}/")
    assert 'class="ls-note is-bad" data-fresh' in html


# --- snapshots ------------------------------------------------------------------------------------


def test_the_sweep_keeps_figures_and_comes_again_later(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "KEPT", 2)
    assert snapshots.figures(small.campaign.pk).parts == {}

    assert growth_snapshots() == 1
    assert growth_snapshots() == 0, "not due again"

    found = snapshots.figures(small.campaign.pk)
    assert set(found.parts) == set(GrowthSnapshot.Kind.values)
    assert found.parts["funnel"]["invited"] == 4
    assert found.until is not None and found.until >= small.now
    for _ in range(3):
        SnapshotDue.objects.update(due_at=small.now)
        assert snapshots.snapshot_take_due() == small.campaign.pk
    assert GrowthSnapshot.objects.filter(kind="spread").count() == 2, "the newest stay"
    due = SnapshotDue.objects.get()
    assert due.due_at is not None and due.due_at > report.database_now() + 4 * dt.timedelta(
        minutes=1
    )
    GrowthSnapshot.objects.update(data={"format": snapshots.FORMAT + 1})
    assert snapshots.figures(small.campaign.pk).parts == {}, "figures of another version"


def test_a_campaign_that_was_over_long_ago_is_counted_a_last_time(small: Small) -> None:
    Campaign.objects.update(ends_at=F("starts_at") - 30 * DAY, starts_at=F("starts_at") - 40 * DAY)

    assert growth_snapshots() == 1

    assert SnapshotDue.objects.get().due_at is None
    assert growth_snapshots() == 0


def test_the_report_as_a_command(small: Small) -> None:
    out = io.StringIO()
    call_command("growth_report", small.campaign.slug, json=True, stdout=out)
    said = json.loads(out.getvalue())
    assert (said["campaign"], said["funnel"]["invited"]) == (small.campaign.slug, 4)
    assert (said["cost"]["spent_fen"], said["spread"]["virality"]) == (500, 2.0)
    out = io.StringIO()
    call_command("growth_report", small.campaign.slug, stdout=out)
    assert "spread.cycle.median_s" in out.getvalue()
    with pytest.raises(CommandError):
        call_command("growth_report", "nowhere")
