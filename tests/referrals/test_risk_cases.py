"""From a chain of accounts with one purse to held rewards, and what a reviewer does with them."""

from __future__ import annotations

import datetime as dt
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models.functions import Now

from campaign.models import CampaignGrowth
from engine.lib.ids import participant_digest
from engine.models import AuditEvent
from packets.holds.resolving import hold_release
from packets.models import Hold
from packets.selectors import wallet_balance
from referrals.forest.bans import ban_lift, bans_carry_out, person_ban
from referrals.growing.world import KINDS, FarmKind, Preset, make_world
from referrals.models import RiskCase, RiskLook, RiskMember, RiskReward
from referrals.risk import reading
from referrals.risk.cases import campaigns_sweep, cases_find
from referrals.risk.holding import rewards_hold
from referrals.risk.looks import campaigns_due
from referrals.risk.reading import campaign_people
from tests import wallets, world
from tests.admin import desk
from tests.referrals.farming import CHAIN, FAMILY, farm_and_family, pay_out, sweep, who
from tests.referrals.stage import app_of, bind, sharing

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def growth() -> CampaignGrowth:
    return farm_and_family()


def test_a_chain_with_one_purse_is_held_and_a_family_is_not(growth: CampaignGrowth) -> None:
    sweep()
    assert not RiskCase.objects.exists(), "nobody has shown a purse yet"

    pay_out(growth, "purse-1", *CHAIN)
    pay_out(growth, "purse-2", "ann")
    sweep()

    [case] = RiskCase.objects.all()
    assert case.score >= 60
    assert {"cluster", "chain"} <= case.evidence.keys()
    members = {bytes(one) for one in case.members.values_list("participant", flat=True)}
    assert members == {who(growth, name) for name in CHAIN}
    assert Hold.objects.count() == len(CHAIN)
    for name in CHAIN:
        balance = wallet_balance(who(growth, name))
        assert balance.available_fen == 0 and balance.held_fen > 0
    assert wallet_balance(who(growth, "ann")).held_fen == 0
    hold = Hold.objects.first()
    assert hold is not None and hold.reasons == ["farm"]
    assert "purse-1" not in str(hold.evidence)
    assert AuditEvent.objects.filter(action="risk.case").count() == 1
    wallets.assert_sound()


def test_people_are_read_step_by_step_and_the_newest_where_there_are_too_many(
    growth: CampaignGrowth, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay_out(growth, "purse-1", *CHAIN[:3])
    campaign = growth.campaign.pk
    steps: list[int] = []
    whole, rows = campaign_people(campaign)
    monkeypatch.setattr(reading, "STEP", 3)

    people, same = campaign_people(campaign, seen=steps.append)

    assert people == whole and steps == [3, 3, 3, 1]
    for name in ("inviter", "joined_s", "payee", "claimed_s"):
        assert np.array_equal(getattr(rows, name), getattr(same, name), equal_nan=True), name
    at = {name: people.index(who(growth, name)) for name in [*CHAIN, *FAMILY]}
    assert [same.inviter[at[name]] for name in CHAIN] == [-1, *(at[one] for one in CHAIN[:-1])]
    assert [same.payee[at[name]] >= 0 for name in CHAIN] == [True] * 3 + [False] * 5
    newest, _ = campaign_people(campaign, most=3)
    assert set(newest) == {who(growth, name) for name in FAMILY}


def test_a_campaign_is_looked_at_when_something_came() -> None:
    growth = sharing()
    bind(growth, "bob", "ann")
    assert campaigns_due() == [growth.campaign.pk]
    campaigns_sweep()
    long_ago = RiskLook.objects.filter(campaign=growth.campaign)
    long_ago.update(looked_at=Now() + dt.timedelta(minutes=2))
    assert campaigns_due() == [], "nothing came since"

    for change, is_due in (
        ({"looked_at": Now() - dt.timedelta(hours=7)}, True),  # time has passed
        ({"rests_until": Now() + dt.timedelta(minutes=5)}, False),  # but the last look was long
        ({"rests_until": Now(), "looked_at": Now()}, True),  # and people joined a moment ago
    ):
        long_ago.update(**change)
        assert campaigns_due() == [growth.campaign.pk] * is_due, change


def test_what_a_reviewer_released_stays_released(growth: CampaignGrowth) -> None:
    pay_out(growth, "purse-1", *CHAIN)
    sweep()
    hold = Hold.objects.order_by("id").first()
    assert hold is not None
    hold_release(hold_id=hold.pk, actor="staff:eva", reason="a family business")

    sweep()

    assert Hold.objects.count() == RiskReward.objects.count() == len(CHAIN)
    assert wallet_balance(bytes(hold.participant)).held_fen == 0
    wallets.assert_sound()


def test_what_a_ban_holds_a_case_holds_only_once_it_is_lifted(growth: CampaignGrowth) -> None:
    pay_out(growth, "purse-1", *CHAIN)
    person = who(growth, CHAIN[-1])
    made = person_ban(
        participant=person, campaign=growth.campaign, actor="staff:eva", reason="a farm"
    )
    bans_carry_out()
    campaigns_sweep()
    won = wallet_balance(person).held_fen
    assert won > 0

    rewards_hold()
    assert RiskReward.objects.count() == len(CHAIN) - 1
    ban_lift(ban_id=made.pk, actor="staff:eva", reason="the case goes on")
    bans_carry_out()
    assert wallet_balance(person).held_fen == 0
    rewards_hold()

    assert wallet_balance(person).held_fen == won
    assert RiskReward.objects.count() == len(CHAIN)
    wallets.assert_sound()


def test_sweeps_at_once_write_one_case_and_hold_once(growth: CampaignGrowth) -> None:
    pay_out(growth, "purse-1", *CHAIN)

    for answer in world.together([campaigns_sweep] * 4, 4):
        assert not isinstance(answer, BaseException), answer
    for answer in world.together([rewards_hold] * 4, 4):
        assert not isinstance(answer, BaseException), answer

    assert RiskCase.objects.count() == 1
    assert (
        RiskMember.objects.count()
        == RiskReward.objects.count()
        == Hold.objects.count()
        == len(CHAIN)
    )
    wallets.assert_sound()


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_a_reviewer_sees_why_as_a_picture_and_opens_a_hold(
    growth: CampaignGrowth, language: str, settings: Any
) -> None:
    settings.REQUIRE_SECOND_FACTOR = False
    pay_out(growth, "purse-1", *CHAIN)
    sweep()
    case = RiskCase.objects.get()
    client = desk.at_desk("risk", lang=language)

    answer = client.get("/admin/referrals/riskcase/")
    assert answer.status_code == 200, answer.headers
    listed = answer.content.decode()
    shown = client.get(f"/admin/referrals/riskcase/{case.pk}/change/").content.decode()

    assert f"/admin/referrals/riskcase/{case.pk}/change/" in listed
    assert ("Each invites exactly the next" in shown) == (language == "en")
    assert shown.count("data-dot=") == len(CHAIN)
    assert shown.count("data-purse") == 1
    assert shown.count("data-hold>") == len(CHAIN)
    hold = Hold.objects.order_by("id").first()
    assert hold is not None and f"/admin/packets/hold/{hold.pk}/change/" in shown
    assert client.get("/admin/referrals/riskcase/77777/change/").status_code == 404
    assert desk.at_desk("support").get("/admin/referrals/riskcase/").status_code == 403


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_hundred_thousand_people_are_looked_at_in_short_statements() -> None:
    """A made-up world in Postgres; its farms share phones, and nobody has asked for money."""
    growth, seed = sharing(), 11
    farms = dict.fromkeys(KINDS, 0.01)
    call_command(
        "grow",
        campaign=growth.campaign.slug,
        users=100_000,
        farms=",".join(f"{kind}:{share}" for kind, share in farms.items()),
        seed=seed,
        bulk=True,
        stdout=io.StringIO(),
    )
    took: list[float] = []

    def timed(execute: Any, *said: Any) -> Any:
        begun = time.monotonic()
        try:
            return execute(*said)
        finally:
            took.append(time.monotonic() - begun)

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = cursor.fetchone()[0]
    begun, servers, wall = time.process_time(), cpu_of(backend), time.monotonic()
    with connection.execute_wrapper(timed):
        found = cases_find(growth.campaign.pk)
    print(
        f"{found:,} people in {RiskCase.objects.count():,} cases;"
        f" {time.process_time() - begun:.1f} s of CPU here,"
        f" {cpu_of(backend) - servers:.1f} s in Postgres, {time.monotonic() - wall:.1f} s in all,"
        f" the longest of {len(took):,} statements {max(took):.2f} s"
    )

    assert max(took) < 5, "what Postgres would cancel"
    world_ = make_world(100_000, Preset.VIRAL, farms, seed)
    app = app_of(growth.campaign)
    farmers = np.flatnonzero(world_.of_kind(FarmKind.DEVICE)).tolist()
    who_ = [participant_digest(app, f"grown-{seed}-{row:06}") for row in farmers]
    known = RiskMember.objects.filter(campaign=growth.campaign, participant__in=who_).count()
    assert known >= 0.95 * len(who_)
    assert cases_find(growth.campaign.pk) == 0, "nobody is new"


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
