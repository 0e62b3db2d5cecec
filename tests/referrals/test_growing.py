"""A world grown through the services stands in Postgres as it was made up."""

from __future__ import annotations

import datetime as dt
import io
import json
import time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from django.contrib.postgres.aggregates import ArrayAgg
from django.core.management import CommandError, call_command
from django.db.models import F, Max, Min, OuterRef, Subquery
from django.db.models.functions import Now

from campaign.models import Campaign, CampaignGrowth
from engine.lib.ids import participant_digest
from packets.models import Claim, Participant
from referrals.analytics.report import database_now, report
from referrals.growing.metrics import cycle_times, forest_of, summary_of
from referrals.growing.world import KINDS, NOBODY, Preset, World, make_world
from referrals.models import (
    Identity,
    Qualification,
    Referral,
    ServerEvent,
    ShareLink,
    Visit,
)
from tests.campaign import stage as campaigns
from tests.referrals import stage

pytestmark = pytest.mark.django_db(transaction=True)

USERS, SEED = 120, 4
FARMS = {KINDS[0]: 0.2, KINDS[2]: 0.1}


def grow(**options: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command("grow", users=USERS, seed=SEED, per_second=10_000, stdout=out, **options)
    said: dict[str, Any] = json.loads(out.getvalue())
    return said


def test_the_forest_in_postgres_is_the_made_up_one_walked_or_copied(tmp_path: Path) -> None:
    growth, copied = stage.sharing(), stage.sharing()
    slug, app = growth.campaign.slug, stage.app_of(growth.campaign)
    packet = campaigns.first_packet(growth.campaign)
    said = grow(
        campaign=slug,
        farms="star:0.2,ring:0.1",
        packet=packet.public_id,
        truth=tmp_path / "truth.json",
    )
    world = make_world(USERS, Preset.VIRAL, FARMS, SEED)

    def digest(row: int) -> bytes:
        return participant_digest(app, f"grown-{SEED}-{row:06}")

    edges = {
        (digest(row), digest(int(inviter)))
        for row, inviter in enumerate(world.inviter)
        if inviter != NOBODY
    }
    found = Referral.objects.filter(campaign=growth.campaign)
    assert {(bytes(each.invitee), bytes(each.inviter)) for each in found} == edges
    assert said["invited"] == len(edges) == said["outcomes"]["join: bound"]
    assert ShareLink.objects.count() >= len({inviter for _, inviter in edges})
    assert Visit.objects.count() >= len(edges)
    assert ServerEvent.objects.filter(kind="joined").count() == USERS
    assert Claim.objects.filter(packet=packet).count() == packet.count
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert len(truth) == said["farmers"] == int(world.is_farmer.sum()) == 36
    assert {each["kind"] for each in truth} == {"star", "ring"}
    with pytest.raises(CommandError, match="already"):
        grow(campaign=slug)
    counted_as_made_up(growth.campaign, world)

    by_copy = grow(
        campaign=copied.campaign.slug,
        farms="star:0.2,ring:0.1",
        packet=campaigns.first_packet(copied.campaign).public_id,
        bulk=True,
    )
    compare(growth, copied)
    assert by_copy["outcomes"]["referrals_referral"] == len(edges)
    claims = [name for name in said["outcomes"] if name.startswith("claim: ")]
    assert [by_copy["outcomes"][name] for name in claims] == [
        said["outcomes"][name] for name in claims
    ]
    counted_as_made_up(copied.campaign, world)
    seen_as_made_up(copied.campaign, world)


@pytest.mark.parametrize(
    "wrong", [{"farms": "moon:0.1"}, {"packet": "0" * 32}, {"campaign": "nowhere"}]
)
def test_what_makes_no_sense_grows_nothing(wrong: dict[str, str]) -> None:
    growth = stage.sharing()
    with pytest.raises(CommandError):
        grow(**{"campaign": growth.campaign.slug, **wrong})
    assert not ShareLink.objects.exists()


def left_behind(app: int) -> dict[str, Any]:
    """Every row that a grown world has left, without its ids, its times and what chance drew."""
    names = dict(Participant.objects.filter(client_app_id=app).values_list("digest", "subject"))
    who = {bytes(digest): name for digest, name in names.items()}
    edges = Referral.objects.filter(client_app_id=app).select_related("parent", "link")
    return {
        "people": sorted(who.values()),
        "links": sorted(
            (who[bytes(one.participant)], one.channel, len(one.code), one.revoke_reason)
            for one in ShareLink.objects.filter(client_app_id=app)
        ),
        "visits": sorted(
            (who[bytes(one.link.participant)], one.campaign_id == one.link.campaign_id,
             one.vehicle, one.network_hash, one.visitor_hash, one.agent)
            for one in Visit.objects.filter(link__client_app_id=app).select_related("link")
        ),
        "edges": sorted(
            (who[bytes(one.invitee)], who[bytes(one.inviter)], who[bytes(one.root)], one.depth,
             who[bytes(one.parent.invitee)] if one.parent else "",
             who[bytes(one.link.participant)], one.source, Visit.objects.get(
                 click_id=one.click_id).link_id == one.link_id)
            for one in edges
        ),
        "watched": Qualification.objects.filter(
            referral__client_app_id=app, qualified_by="", next_attempt_at__isnull=False
        ).count(),
        "joined": sorted(
            (who[bytes(one.participant)], one.key, one.mission, one.campaign is not None)
            for one in ServerEvent.objects.filter(client_app_id=app, kind="joined")
        ),
        # Of hashes only who shares them: each app has its own.
        "identities": sorted(
            (kind, key_id, sorted(who[bytes(one)] for one in people))
            for kind, key_id, people in Identity.objects.filter(participant__in=list(who))
            .values("digest")
            .annotate(people=ArrayAgg("participant"))
            .values_list("kind", "key_id", "people")
        ),
    }  # fmt: skip


def compare(walked: CampaignGrowth, copied: CampaignGrowth) -> None:
    """Both left the same behind; and in the copied one stands what is the world's own."""
    apps = [stage.app_of(one.campaign) for one in (walked, copied)]
    first, second = (left_behind(app) for app in apps)
    for what in first:
        assert first[what] == second[what], what
    edges = Referral.objects.filter(campaign=copied.campaign)
    span = edges.aggregate(span=Max("bound_at") - Min("bound_at"))["span"]
    assert span.total_seconds() > 3 * 86_400
    assert not edges.filter(bound_at__gt=Now()).exists()
    assert not edges.exclude(link__created_at__lt=F("bound_at")).exists()
    click = Visit.objects.filter(click_id=OuterRef("click_id"))
    assert not edges.exclude(bound_at__gt=Subquery(click.values("at"))).exists()
    assert ServerEvent.objects.filter(campaign=copied.campaign, kind="active").exists()
    call_command("audit_money", stdout=io.StringIO())


def counted_as_made_up(campaign: Campaign, world: World) -> None:
    """The growth figures, read from the rows, are those of the world itself."""
    found, truth = report(campaign, database_now()), summary_of(forest_of(world.inviter))
    spread, funnel = found["spread"], found["funnel"]
    for name in ("invited", "largest", "deepest", "broadest"):
        assert spread[name] == getattr(truth, name)
    assert (spread["trees"], spread["virality"]) == (truth.cascades, round(truth.virality, 4))
    assert funnel["people"] == world.size, "who came alone is reported by the app"
    assert sum(row["joined"] for row in funnel["channels"]) == truth.invited
    visits = Visit.objects.filter(campaign=campaign).count()
    assert sum(row["visits"] for row in funnel["channels"]) == visits
    friends = np.bincount(world.inviter[world.inviter != NOBODY], minlength=world.size)
    brought = np.count_nonzero((world.inviter != NOBODY) & (friends > 0))
    assert sum(row["brought"] for row in funnel["channels"]) == brought
    claims = Claim.objects.filter(packet__campaigns=campaign)
    assert found["cost"]["spent_fen"] == sum(claims.values_list("amount_fen", flat=True))


def seen_as_made_up(campaign: Campaign, world: World) -> None:
    """Of a copied world also what depends on its times: who came back when, cycles, K."""
    until = database_now()
    found, zone = report(campaign, until), ZoneInfo(campaign.timezone)
    joined = dict(
        ServerEvent.objects.filter(campaign=campaign, kind="joined").values_list("key", "at")
    )
    days = [
        joined[f"grown-{SEED}:joined:{row}"].astimezone(zone).date() for row in range(world.size)
    ]
    today = until.astimezone(zone).date()
    for name, side in (("invited", world.inviter != NOBODY), ("cold", world.inviter == NOBODY)):
        for place, one in enumerate(found["retention"][name]):
            after = dt.timedelta(days=one["day"])
            over = np.array([day + after < today for day in days]) & side
            expected = (int(over.sum()), int((over & world.active[:, place]).sum()))
            assert (one["people"], one["seen"]) == expected, (name, one["day"])
    median, late = cycle_times(world.inviter, world.joined_s) or (0.0, 0.0)
    cycle = found["spread"]["cycle"]
    assert (cycle["median_s"], cycle["p90_s"]) == pytest.approx((median, late), abs=0.01)
    cohorts = found["spread"]["cohorts"]
    assert sum(cohort["people"] for cohort in cohorts) == world.size
    for place, window_s in enumerate(found["spread"]["windows_s"]):
        friends = np.flatnonzero(world.inviter != NOBODY)
        took_s = world.joined_s[friends] - world.joined_s[world.inviter[friends]]
        in_time = np.count_nonzero(took_s <= window_s)
        assert sum(cohort["friends"][place] for cohort in cohorts) == in_time
        closed = [cohort for cohort in cohorts if cohort["closed"][place]]
        people = sum(cohort["people"] for cohort in closed)
        expected_k = sum(cohort["friends"][place] for cohort in closed) / people
        assert found["spread"]["k"][place] == round(expected_k, 4)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_hundred_thousand_people_by_copy() -> None:
    copied, people = stage.sharing(), 100_000
    farms = ",".join(f"{kind}:0.01" for kind in KINDS)
    begun = time.process_time(), time.monotonic()
    out = io.StringIO()
    call_command(
        "grow",
        campaign=copied.campaign.slug,
        users=people,
        farms=farms,
        bulk=True,
        stdout=out,
    )
    said = json.loads(out.getvalue())
    rows = sum(said["outcomes"].values())
    cpu_s, wall_s = time.process_time() - begun[0], time.monotonic() - begun[1]
    print(f"{rows:,} rows, {cpu_s:.1f} s of CPU here, {wall_s:.1f} s in all")
    assert said["outcomes"]["packets_participant"] == people
    assert Referral.objects.count() == said["invited"] > people / 2
    assert Qualification.objects.count() == said["invited"]
    begun = time.process_time(), time.monotonic()
    found = report(copied.campaign, database_now())
    cpu_s, wall_s = time.process_time() - begun[0], time.monotonic() - begun[1]
    print(f"growth figures: {cpu_s:.1f} s of CPU here, {wall_s:.1f} s in all")
    assert found["funnel"]["people"] == people
    for name in ("invited", "largest"):
        assert found["spread"][name] == said[name]
    assert found["spread"]["virality"] == pytest.approx(said["virality"], abs=0.001)
    call_command("audit_money", stdout=io.StringIO())
