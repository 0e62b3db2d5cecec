"""The policy: tried on what was, published from the trial alone, and never changed."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import psycopg
import pytest
from django.db import DatabaseError, transaction
from django.db.models.functions import Now

from engine.lib.errors import ServiceError
from engine.models import AuditEvent
from packets.models import Claim
from referrals.models import RiskCase, RiskPolicy, RiskTrial
from referrals.risk.policy import SHIPPED, Policy, policy_check, policy_of, policy_publish
from referrals.risk.reasons import Reason
from referrals.risk.trials import WAITING_MAX, trial_ask, trials_run
from tests import wallets
from tests.referrals.farming import CHAIN, farm_and_family, pay_out, sweep, who

MILD = replace(SHIPPED, challenge_at=40, hold_at=100)


def tried(draft: Policy) -> RiskTrial:
    trial = trial_ask(draft=draft, actor="staff:eva")
    while trials_run():
        pass
    trial.refresh_from_db()
    return trial


def publish(trial: RiskTrial, reason: str = "too strict for chains") -> RiskPolicy:
    return policy_publish(trial_id=trial.pk, actor="staff:eva", reason=reason)


@pytest.mark.django_db
def test_the_first_version_is_as_shipped() -> None:
    [first] = RiskPolicy.objects.all()
    assert first.version == 1
    assert policy_of(first) == SHIPPED


@pytest.mark.django_db(transaction=True)
def test_a_draft_says_what_it_would_have_done_and_is_in_force_once_published() -> None:
    growth = farm_and_family()
    pay_out(growth, "purse-1", *CHAIN)

    trial = tried(MILD)

    said = trial.result
    everybody = len(CHAIN) + 4
    assert trial.done_at is not None and said["people"] == everybody
    assert said["before"] == {"hold": len(CHAIN), "allow": 4}
    assert said["after"] == {"challenge": len(CHAIN), "allow": 4}
    assert said["rules"]["chain"] == said["rules"]["cluster"] == {"challenge": len(CHAIN)}
    assert said["changes"] == {"hold>challenge": len(CHAIN)}
    assert said["rewards"] == {"hold>challenge": len(CHAIN)}
    mine = Claim.objects.filter(participant__in=[who(growth, name) for name in CHAIN])
    assert said["fen"] == {"hold>challenge": sum(one.amount_fen for one in mine)}
    named = {person for _campaign, person in said["named"]["hold>challenge"]}
    assert named == {who(growth, name).hex() for name in CHAIN}
    assert trial.seen == everybody - 2, "two people came by themselves"
    assert not RiskCase.objects.exists(), "a dry run writes nothing but its own row"

    made = publish(trial)
    sweep()

    assert (made.version, policy_of(made), made.trial) == (2, MILD, trial)
    case = RiskCase.objects.get()
    assert (case.decision, case.policy) == ("challenge", made)
    told = AuditEvent.objects.get(action="risk_policy.publish")
    assert told.actor == "staff:eva" and told.reason == "too strict for chains"
    assert told.before["hold_at"] == 60 and told.after["hold_at"] == 100
    wallets.assert_sound()


@pytest.mark.django_db
def test_nothing_is_published_but_what_was_tried_just_now() -> None:
    waits = trial_ask(draft=MILD, actor="staff:eva")
    with pytest.raises(ServiceError) as refusal:
        publish(waits)
    assert refusal.value.code == "running"

    trial = tried(MILD)
    RiskTrial.objects.filter(pk=trial.pk).update(done_at=Now() - dt.timedelta(minutes=61))
    with pytest.raises(ServiceError) as refusal:
        publish(trial)
    assert refusal.value.code == "stale"

    first, second = tried(MILD), tried(replace(SHIPPED, hold_at=70))
    with pytest.raises(ServiceError) as refusal:
        publish(first, "  ")
    assert refusal.value.code == "blank"
    publish(first)
    with pytest.raises(ServiceError) as refusal:
        publish(second)
    assert refusal.value.code == "outdated"
    with pytest.raises(ServiceError):
        publish(first)
    assert list(RiskPolicy.objects.order_by("version").values_list("version", flat=True)) == [1, 2]


@pytest.mark.django_db
def test_the_application_may_change_no_version_and_no_draft() -> None:
    trial = trial_ask(draft=MILD, actor="staff:eva")
    for rows in (RiskTrial.objects.filter(pk=trial.pk), RiskPolicy.objects.all()):
        with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic():
            rows.update(hold_at=1)


@pytest.mark.django_db
def test_postgres_refuses_to_rewrite_a_version(owner_dsn: str) -> None:
    with psycopg.connect(owner_dsn) as owner:
        with pytest.raises(psycopg.errors.IntegrityError):
            owner.execute("UPDATE referrals_riskpolicy SET hold_at = 1")
        owner.rollback()


@pytest.mark.django_db
def test_few_drafts_are_tried_at_once() -> None:
    for _ in range(WAITING_MAX):
        trial_ask(draft=MILD, actor="staff:eva")
    with pytest.raises(ServiceError) as refusal:
        trial_ask(draft=MILD, actor="staff:eva")
    assert refusal.value.code == "too_many"


def test_decisions_follow_from_scores() -> None:
    policy = replace(SHIPPED, deny_at=90)
    decided = {score: policy.decide(score) for score in (39, 40, 59, 60, 89, 90, 100)}
    assert decided == {
        39: None, 40: "challenge", 59: "challenge", 60: "hold", 89: "hold", 90: "deny", 100: "deny",
    }  # fmt: skip
    assert replace(policy, challenge_at=None, deny_at=None).decide(59) is None
    off = replace(SHIPPED, weights={**SHIPPED.weights, Reason.CLUSTER: 0})
    assert off.score([Reason.CLUSTER, Reason.FAST]) == 25
    assert off.counted([Reason.CLUSTER, Reason.FAST]) == [Reason.FAST]
    assert SHIPPED.score(list(Reason)) == 100


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("hold_at", replace(SHIPPED, hold_at=0, challenge_at=None)),
        ("challenge_at", replace(SHIPPED, challenge_at=61)),
        ("deny_at", replace(SHIPPED, deny_at=59)),
        ("fast", replace(SHIPPED, weights={**SHIPPED.weights, Reason.FAST: 101})),
        ("hold_at", replace(SHIPPED, weights=dict.fromkeys(Reason, 0))),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(field: str, wrong: Policy) -> None:
    policy_check(SHIPPED)
    with pytest.raises(ServiceError) as refusal:
        policy_check(wrong)
    assert refusal.value.field == field
