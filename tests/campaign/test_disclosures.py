"""What people are told is published with the version, word for word, and stays as it was."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

import psycopg
import pytest
from django.db import ProgrammingError, connection
from django.test import Client
from django.utils import translation

from campaign import services, versions
from campaign.disclosing import odds
from campaign.disclosing.publishing import disclosure_words, disclosures_publish_missing
from campaign.models import Campaign, Disclosure
from engine.lib import clock
from engine.lib.sql import load
from packets.invariants import Verdict, invariants_check
from packets.models import Packet
from packets.splitting import Rules, Strategy, Tier, portions
from tests.campaign import stage

pytestmark = pytest.mark.django_db

# For tests in which somebody else logs in to the database: what they read must be committed.
own_connections = pytest.mark.django_db(transaction=True)
HOUR = dt.timedelta(hours=1)
TIERS: dict[str, Any] = {
    "total_fen": 100_000,
    "count": 2_000,
    "strategy": "tiers",
    "tiers": [(8_888, 1), (500, 40)],
    "remainder": "lucky",
    "max_fen": 9_000,
}


def later(**fields: Any) -> Campaign:
    """A draft that starts in an hour, without packets."""
    now = clock.now()
    return stage.draft(starts_at=now + HOUR, ends_at=now + 2 * HOUR, budget_fen=200_000, **fields)


def read(campaign: Campaign, number: int | None = None, **headers: str) -> tuple[int, str]:
    where = f"/d/{campaign.slug}" + (f"/{number}" if number else "")
    answer = Client().get(where, headers=headers)
    return answer.status_code, answer.content.decode()


def told(campaign: Campaign, language: str = "en") -> dict[str, str]:
    """What the newest version says, by its rows' keys."""
    newest = campaign.disclosures.order_by("-number")[0]
    body = json.loads(newest.body)[language]
    rows = {
        f"{section['key']}/{row['key']}": row["value"]
        for section in body["sections"]
        for row in section["rows"]
    }
    return rows | {s["key"]: s["text"] for s in body["sections"] if s["text"]}


def of_packet(campaign: Campaign, packet: Packet) -> dict[str, str]:
    stem = f"packet.{packet.public_id}/"
    rows = told(campaign)
    return {key.removeprefix(stem): rows[key] for key in rows if key.startswith(stem)}


# --- what is said ---------------------------------------------------------------------------------


def test_prizes_are_told_with_their_exact_quantities_and_odds() -> None:
    campaign = later()
    packet = stage.add_packet(campaign, **TIERS)
    stage.approve(campaign)

    rows = of_packet(campaign, packet)

    assert rows["count"] == "2,000" and rows["total"] == "¥1,000.00"
    assert rows["prize.1"] == "1 of them; chance of a portion: 1 in 2,000 (0.05%)"
    assert rows["prize.2"] == "40 of them; chance of a portion: 40 in 2,000 (2%)"
    # 1,959 portions share ¥711.12.
    assert rows["rest"].startswith("1,959 of them; chance of a portion: 1,959 in 2,000 (97.95%)")
    assert "≈ ¥0.3630 on average" in rows["rest"] and rows["average"] == "¥0.50"
    assert rows["commitment"] == packet.commitment
    assert told(campaign, "zh")["odds"] == "人人有份"


@pytest.mark.parametrize("strategy", ["lucky", "double_mean"])
def test_chance_is_told_with_number_bounds_and_average(strategy: str) -> None:
    campaign = later()
    packet = stage.add_packet(campaign, 1_000, 3, strategy=strategy, min_fen=10)
    stage.approve(campaign)

    rows = of_packet(campaign, packet)

    assert rows["range"] == "¥0.10 at least, ¥9.80 at most"
    assert rows["average"] == "≈ ¥3.3333" and rows["method"].startswith("By chance.")


@pytest.mark.parametrize(
    "rules",
    [
        Rules(Strategy.LUCKY, 5_000, 20, min_fen=3, max_fen=900),
        Rules(Strategy.DOUBLE_MEAN, 5_000, 20, min_fen=3),
        Rules(Strategy.FIXED, 1_000, 3),
        Rules(Strategy.TIERS, 5_000, 20, tiers=(Tier(1_000, 2),), remainder=Strategy.DOUBLE_MEAN),
    ],
    ids=lambda rules: rules.strategy.value,
)
def test_no_portion_lies_outside_of_what_is_told(rules: Rules) -> None:
    with translation.override("en"):
        bounds = odds.limits(rules)
        for run in range(200):
            cut = list(portions(rules, f"k{run}", rules.total_fen, rules.count, _quantities(rules)))
            amounts = [portion.amount_fen for portion in cut]
            assert bounds[0] <= min(amounts) and max(amounts) <= bounds[1]
            assert sum(amounts) == rules.total_fen


def _quantities(rules: Rules) -> tuple[int, ...]:
    return tuple(tier.quantity for tier in rules.tiers)


@pytest.mark.parametrize(
    ("quantity", "count", "said"),
    [(1, 3, "33.33"), (1, 1, "100"), (1, 100_000_000, "0.000001"), (2, 7_000_003, "0.00002857")],
)
def test_percentages_are_never_rounded_to_nothing(quantity: int, count: int, said: str) -> None:
    assert odds.percent(quantity, count) == said


def test_who_when_and_where_are_told_in_both_languages() -> None:
    campaign = later(
        name_en="Lantern night",
        organiser_zh="某某公司",
        organiser_en="Some Company",
        contact_zh="电话 400",
        timezone_name="Asia/Tokyo",
    )
    packet = stage.add_packet(campaign, new_only=True, min_account_age_days=3, needs_ticket=True)
    stage.approve(campaign)

    rows = told(campaign)

    assert rows["campaign/organiser"] == "Some Company" and rows["campaign/apps"] == "An app"
    assert "Asia/Tokyo (UTC+9)" in rows["campaign/starts"]
    assert rows["complaints/contact"] == "电话 400"  # no English one was written
    who = of_packet(campaign, packet)
    assert who["who"] == "new people; accounts of 3 days or more; who hold a ticket"
    assert who["times"] == "once with each ticket that a person holds"
    assert told(campaign, "zh")["campaign/organiser"] == "某某公司"


def test_without_an_organiser_the_apps_stand_for_themselves() -> None:
    campaign = stage.live()
    assert told(campaign)["campaign/organiser"] == "An app"


def test_the_rounds_of_a_rain_are_one_section_with_their_times() -> None:
    campaign = later()
    services.rain_create(
        campaign_id=campaign.pk,
        name_zh="红包雨",
        name_en="Rain",
        first_at=campaign.starts_at,
        rounds=3,
        interval_s=600,
        length_s=60,
        total_fen=1_000,
        count=10,
        actor=stage.ACTOR,
    )
    stage.approve(campaign)

    rounds = [key for key in told(campaign) if key.startswith("rain.红包雨/round.")]

    assert len(rounds) == 3
    assert told(campaign)[rounds[0]].count("Asia/Shanghai") == 2


def spreading(**fields: Any) -> Campaign:
    """A draft that starts in an hour; inviters get ¥1.00 for each of 20 friends, friends ¥0.50."""
    campaign = later()
    stage.add_packet(campaign)
    services.growth_edit(campaign_id=campaign.pk, actor=stage.ACTOR, **fields)
    services.growth_reward_packets_make(
        campaign_id=campaign.pk, inviter_fen=100, invitee_fen=50, friends=20, actor=stage.ACTOR
    )
    return campaign


def test_what_inviting_brings_is_told_with_its_bounds() -> None:
    campaign = spreading(window_s=3 * 86_400, inviter_cap=7, qualifying_event="", new_only=True)
    stage.approve(campaign)

    rows = told(campaign)

    assert rows["inviting/inviter"] == "¥1.00 for each friend, from packet 2, 20 times in all"
    assert rows["inviting/invitee"] == "¥0.50 for each friend, from packet 3, 20 times in all"
    assert rows["inviting/cap"] == "7 rewards" and rows["inviting/friends"] == "new people"
    assert rows["inviting/attribution"].endswith("within 3 days")
    assert rows["inviting/depth"].startswith("Only who invited the friend is rewarded")
    assert rows["inviting/earned"] == "the friend's first claim"


def test_two_steps_of_reward_and_an_event_are_told_as_they_are() -> None:
    campaign = spreading(
        depth=2, qualifying="event", qualifying_event="signed_up", window_s=90, shared_friends=5
    )
    stage.approve(campaign)
    rows = told(campaign)
    assert "the one who invited them; nobody beyond" in rows["inviting/depth"]
    assert rows["inviting/earned"].endswith("(signed_up)")
    assert rows["inviting/attribution"].endswith("within 90 seconds")
    assert rows["inviting/shared"] == "up to 5 friends"


def test_a_campaign_that_may_not_be_shared_says_nothing_of_inviting() -> None:
    campaign = spreading(is_on=False)
    stage.approve(campaign)
    assert not [key for key in told(campaign) if key.startswith("inviting")]


def test_a_higher_cap_of_a_running_campaign_is_published() -> None:
    campaign = spreading()
    stage.approve(campaign)
    services.campaign_launch(campaign_id=campaign.pk, actor=stage.ACTOR)

    services.growth_edit(campaign_id=campaign.pk, actor=stage.ACTOR, inviter_cap=30)

    newest = campaign.disclosures.order_by("-number")[0]
    assert (newest.number, newest.cause) == (2, "growth")
    [change] = json.loads(newest.body)["en"]["changes"]
    assert change == {
        "label": "Inviting friends · At most, for one inviter",
        "before": "20 rewards",
        "after": "30 rewards",
    }


# --- when it is published -------------------------------------------------------------------------


def test_nothing_is_there_before_the_approval_and_the_page_is_afterwards() -> None:
    campaign = later()
    stage.add_packet(campaign)
    unknown = Client().get("/d/no-such-campaign")
    assert read(campaign) == (404, unknown.content.decode())
    stage.submit(campaign)
    assert read(campaign)[0] == 404

    services.campaign_approve(
        campaign_id=campaign.pk,
        version_hash=versions.version_hash(Campaign.objects.get(pk=campaign.pk)),
        by=stage.member("approver", "bob"),
    )

    status, text = read(campaign)
    assert status == 200 and "每人限领一次" in text and "规则与概率" in text
    row = campaign.disclosures.get()
    assert (row.number, row.cause) == (1, "approved")
    assert row.version_hash == campaign.approvals.get().version_hash
    assert row.sha256 == hashlib.sha256(row.body.encode()).hexdigest() and row.sha256 in text


def test_the_page_speaks_the_readers_language_and_needs_nothing_else() -> None:
    campaign = stage.live(name_en="Lantern night", rules_en="One each")
    english = Client().get(f"/d/{campaign.slug}", headers={"accept-language": "en"})
    assert english["Content-Language"] == "en" and 'lang="en"' in english.content.decode()
    assert "Lantern night" in english.content.decode() and "One each" in english.content.decode()
    switched = Client().get(f"/d/{campaign.slug}?lang=zh", headers={"accept-language": "en"})
    assert switched["Content-Language"] == "zh-CN" and "红包" in switched.content.decode()
    assert "<script" not in english.content.decode() and not english.cookies
    assert "default-src 'none'" in english["Content-Security-Policy"]
    assert Client().post(f"/d/{campaign.slug}").status_code == 405
    assert Client().get(f"/d/{campaign.slug}/99").status_code == 404
    assert Client().get(f"/d/{campaign.slug}/{'9' * 30}").status_code == 404


def test_what_staff_typed_is_shown_as_text() -> None:
    campaign = stage.live(name_en="<script>x</script>")
    _status, text = read(campaign, **{"accept-language": "en"})
    assert "<script" not in text and "&lt;script&gt;x" in text


def test_an_edit_before_the_start_withdraws_it_and_the_next_approval_is_a_new_version() -> None:
    campaign = later()
    stage.add_packet(campaign)
    stage.approve(campaign)
    services.campaign_update(
        campaign_id=campaign.pk, actor="x", by=stage.member("operations", "ann"), rules_zh="另一条"
    )
    status, text = read(campaign)
    assert status == 200 and "另一条" not in text and "此版本在开始前已撤回" in text

    stage.approve(campaign)

    newest, first = campaign.disclosures.order_by("-number")
    assert (newest.number, newest.cause) == (2, "approved")
    [change] = json.loads(newest.body)["zh"]["changes"]
    assert (change["before"], change["after"]) == ("每人限领一次", "另一条")
    status, text = read(campaign)
    assert "另一条" in text and "已撤回" not in text and "<del>每人限领一次</del>" in text
    status, text = read(campaign, first.number)
    assert status == 200 and "这是较早的版本" in text


def test_the_same_version_approved_again_is_published_once() -> None:
    campaign = later()
    stage.add_packet(campaign)
    stage.approve(campaign)
    bob = stage.member("approver", "bob")
    services.campaign_send_back(campaign_id=campaign.pk, by=bob, reason="wait")
    stage.approve(campaign)
    assert campaign.disclosures.count() == 1


def test_a_running_campaign_publishes_each_change_in_peoples_favour() -> None:
    campaign = stage.live()
    end = campaign.ends_at + HOUR
    services.campaign_extend(campaign_id=campaign.pk, ends_at=end, actor=stage.ACTOR)
    stage.top_up(campaign, 50_000, {"total_fen": 30_000, "count": 3})

    third, second, first = campaign.disclosures.order_by("-number")

    assert (first.cause, second.cause, third.cause) == ("approved", "extended", "topped_up")
    labels = [change["label"] for change in json.loads(second.body)["en"]["changes"]]
    assert labels == ["The campaign · Ends at"]
    changes = {c["label"]: c for c in json.loads(third.body)["en"]["changes"]}
    budget = changes["The campaign · Given away at most"]
    assert (budget["before"], budget["after"]) == ("¥1,000.00", "¥1,500.00")
    assert changes["Packet 2 · Portions"]["before"] == ""
    _status, text = read(campaign, **{"accept-language": "en"})
    assert text.count("changed in participants&#x27; favour") == 2


def test_a_refused_approval_publishes_nothing() -> None:
    campaign = later()
    stage.add_packet(campaign)
    stage.submit(campaign)
    with pytest.raises(services.review.ServiceError):
        services.campaign_approve(
            campaign_id=campaign.pk, version_hash="0" * 64, by=stage.member("approver", "bob")
        )
    assert not Disclosure.objects.exists()


def test_what_was_approved_before_there_was_the_page_is_published_by_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as older:
        older.setattr(services.review, "disclosure_publish", lambda campaign: None)
        campaign, over = stage.live(), stage.live(slug="over")
    services.campaign_kill(campaign_id=over.pk, actor="x")
    assert read(campaign)[0] == 404

    assert disclosures_publish_missing(10) == 1
    assert disclosures_publish_missing(10) == 0
    assert campaign.disclosures.get().number == 1 and read(over)[0] == 404


# --- it stays -------------------------------------------------------------------------------------


def test_other_code_and_translations_do_not_change_what_was_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    campaign = stage.live()
    before = read(campaign)
    monkeypatch.setattr(odds, "method_words", lambda rules: "OTHER WORDS")
    assert "OTHER WORDS" in str(disclosure_words(versions.campaign_document(campaign)))
    assert read(campaign) == before


STATEMENTS = ("UPDATE campaign_disclosure SET number = 5", "DELETE FROM campaign_disclosure")


@own_connections
def test_nobody_changes_or_removes_what_was_published(owner_dsn: str) -> None:
    """The application has no right to, and the owner is stopped by the trigger."""
    campaign = stage.live()
    for statement in STATEMENTS:
        with pytest.raises(ProgrammingError, match="denied"), connection.cursor() as cursor:
            cursor.execute(statement)
        with psycopg.connect(owner_dsn) as owner, pytest.raises(psycopg.IntegrityError):
            owner.execute(statement)
    assert campaign.disclosures.get().number == 1


@pytest.mark.control
@own_connections
def test_without_the_guard_what_was_published_can_be_changed(owner_dsn: str) -> None:
    campaign = stage.live()
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        owner.execute("DROP TRIGGER disclosure_insert_only ON campaign_disclosure")
        try:
            owner.execute(STATEMENTS[0])
        finally:
            owner.execute(load("campaign", "disclosing.sql"))
    assert campaign.disclosures.get().number == 5


TURNED_RED = {"published_whole"}


@own_connections
def test_the_money_check_sees_words_that_were_tampered_with(superuser_dsn: str) -> None:
    stage.live()

    def verdict() -> Verdict:
        checks = {check.name: check.verdict for check in invariants_check().checks}
        return checks["published_whole"]

    assert verdict() is Verdict.HOLDS
    with psycopg.connect(superuser_dsn) as link:
        link.execute("SET session_replication_role = replica")
        link.execute("UPDATE campaign_disclosure SET body = body || ' '")
    assert verdict() is Verdict.BROKEN
