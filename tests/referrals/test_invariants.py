"""Growth's invariants hold on a sound forest, and turn red when exactly what they guard breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from packets import invariants
from referrals.forest.bans import person_ban
from referrals.invariants import QUESTIONS
from referrals.models import Referral, Reward
from tests import world
from tests.packets.test_invariants import audit_money
from tests.packets.test_invariants import corrupt as corrupt
from tests.referrals.rewarding import claims, known, rewarding, sweep
from tests.referrals.stage import app_of, bind

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def story() -> None:
    """ann ← bob ← cem, and ann ← dan, all rewarded two steps up; then ann comes under zed. A tree
    of its own: kim ← lee."""
    growth = rewarding(depth=2, inviter_cap=3)
    known(growth, "zed", "ann", "kim")
    for friend, inviter in (("bob", "ann"), ("cem", "bob"), ("dan", "ann"), ("lee", "kim")):
        bind(growth, friend, inviter)
        claims(growth, friend)
    sweep()
    bind(growth, "ann", "zed")
    eve = world.person("eve", app_of(growth.campaign)).participant
    person_ban(participant=eve, campaign=growth.campaign, actor="test", reason="a farm")
    # ann: bob, dan, and cem one step further down; bob: cem; kim: lee; and the four friends.
    assert Reward.objects.filter(state="granted").count() == 9
    assert Referral.objects.count() == 5


# Edges by their place in the story.
BOB, CEM, DAN, LEE, ANN = (
    f"(SELECT id FROM referrals_referral ORDER BY id OFFSET {place} LIMIT 1)" for place in range(5)
)
OF_BOB = f"referral_id = {BOB}"

# name → (statements, constraints taken off, every check that turns red)
CORRUPTIONS: dict[str, tuple[list[str], list[tuple[str, str]], set[str]]] = {
    "one_inviter": (
        [
            "INSERT INTO referrals_referral (campaign_id, client_app_id, invitee, inviter, link_id,"
            " parent_id, root, depth, source, bound_at) SELECT campaign_id, client_app_id, invitee,"
            " inviter, link_id, parent_id, root, depth, source, bound_at FROM referrals_referral"
            f" WHERE id = {LEE}",
            "INSERT INTO referrals_qualification (referral_id) SELECT max(id)"
            " FROM referrals_referral",
        ],
        [("referrals_referral", "referral_once")],
        {"one_inviter"},
    ),
    # ann's inviter becomes cem, who stands below her; all columns say so, as without the walk.
    "forest_acyclic": (
        [
            "UPDATE referrals_referral AS edge SET inviter = low.invitee, parent_id = low.id,"
            " root = low.root, depth = low.depth + 1, link_id = (SELECT link.id FROM"
            " referrals_sharelink AS link WHERE link.participant = low.inviter LIMIT 1)"
            f" FROM referrals_referral AS low WHERE edge.id = {ANN} AND low.id = {CEM}",
            "UPDATE referrals_sharelink SET participant = edge.inviter FROM referrals_referral AS"
            f" edge WHERE edge.id = {ANN} AND referrals_sharelink.id = edge.link_id",
        ],
        [],
        {"forest_acyclic", "referral_links"},
    ),
    "referral_parents": (
        [f"UPDATE referrals_referral SET depth = 7 WHERE id = {CEM}"],
        [],
        {"referral_parents"},
    ),
    "referral_links": (
        [
            f"UPDATE referrals_referral SET link_id = (SELECT link_id FROM referrals_referral"
            f" WHERE id = {LEE}) WHERE id = {DAN}"
        ],
        [],
        {"referral_links"},
    ),
    "referral_watched": (
        [f"DELETE FROM referrals_qualification WHERE referral_id = {LEE}"],
        [],
        {"referral_watched"},
    ),
    "reward_once": (
        [
            "INSERT INTO referrals_reward (referral_id, side, participant, state, qualified_by, at)"
            f" SELECT referral_id, side, participant, 'capped', '', at FROM referrals_reward"
            f" WHERE {OF_BOB} AND side = 'inviter'",
        ],
        [("referrals_reward", "reward_once")],
        {"reward_once"},
    ),
    "reward_sides": (
        [
            "UPDATE referrals_reward SET side = CASE side WHEN 'inviter' THEN 'invitee' ELSE"
            f" 'inviter' END WHERE referral_id = {LEE}"
        ],
        [("referrals_reward", "reward_once")],
        {"reward_sides", "reward_claims"},
    ),
    # Somebody's own claim is passed off as what the invitation earned.
    "reward_claims": (
        [
            "UPDATE referrals_reward AS reward SET claim_id = own.id FROM packets_claim AS own"
            f" WHERE reward.{OF_BOB} AND side = 'invitee' AND own.participant = reward.participant"
            " AND own.serial = 0",
        ],
        [],
        {"reward_claims"},
    ),
    "inviter_cap": (
        ["UPDATE campaign_campaigngrowth SET inviter_cap = 2"],
        [],
        {"inviter_cap"},
    ),
    "reward_depth": (
        ["UPDATE campaign_campaigngrowth SET depth = 3"],
        [("campaign_campaigngrowth", "growth_depth")],
        {"reward_depth"},
    ),
    "bans_at_doors": (
        ["UPDATE referrals_ban SET lifted_at = now()"],
        [],
        {"bans_at_doors"},
    ),
}


def broken_by(
    link: psycopg.Connection[Any], statements: list[str], taken_off: list[tuple[str, str]]
) -> set[str]:
    """What every question says of the corrupted rows, in a transaction that comes to nothing."""
    with link.transaction(force_rollback=True):
        for table, constraint in taken_off:
            link.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
        for statement in statements:
            assert link.execute(statement).rowcount != 0, statement
        return {
            name
            for query in invariants.questions_sql().values()
            for name, _what in link.execute(query).fetchall()
        }


def test_each_corruption_is_seen_by_its_question_alone(
    story: None, superuser_dsn: str, corrupt: Callable[..., None]
) -> None:
    assert audit_money() == (0, set())
    with psycopg.connect(superuser_dsn, autocommit=True) as link:
        link.execute("SET session_replication_role = replica")
        seen = {
            name: broken_by(link, statements, taken_off)
            for name, (statements, taken_off, _broken) in CORRUPTIONS.items()
        }

    assert seen == {name: broken for name, (_statements, _off, broken) in CORRUPTIONS.items()}
    corrupt(*CORRUPTIONS["reward_claims"][0])
    assert audit_money() == (1, {"reward_claims"})


def test_every_question_of_growth_has_been_turned_red() -> None:
    assert {question.name for question in QUESTIONS.questions} == CORRUPTIONS.keys()


def test_a_name_is_asked_once() -> None:
    mine = invariants.QuestionSet("other", (invariants.Question(1, "lane_caps", "…"),))

    with pytest.raises(AssertionError, match="lane_caps"):
        invariants.questions_register(mine)

    assert len(invariants.questions()) == len(invariants.QUESTIONS) + len(QUESTIONS.questions)
