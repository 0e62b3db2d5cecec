"""Two people at once on one campaign, a hundred times each: one outcome, one audit row each."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import psycopg
import pytest
from django.contrib.auth.models import User

from campaign import services
from campaign.models import Campaign, CampaignApproval, Notice, TopUp
from campaign.services import drafts, life, review
from campaign.versions import version_hash
from engine.lib import clock
from engine.lib.errors import ServiceError, TransitionRefused
from packets import ledger
from packets.invariants import invariants_check
from packets.models import Gate, Transfer
from tests import world
from tests.campaign import stage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

TRIES = 100


def at_once(*acts: Callable[[], Any]) -> list[str]:
    """What came of each: `did`, or the code of its refusal; anything else fails the test."""
    said: list[str] = []
    results: list[Any] = world.together(acts, threads=len(acts))
    for result in results:
        if isinstance(result, ServiceError):
            said.append(result.code)
        elif isinstance(result, BaseException):
            raise result
        else:
            said.append("did")
    return said


def waiting() -> Campaign:
    """A draft that starts in an hour."""
    now = clock.now()
    campaign = stage.draft(
        starts_at=now + dt.timedelta(hours=1), ends_at=now + dt.timedelta(hours=2)
    )
    stage.add_packet(campaign)
    return campaign


def in_review(campaign: Campaign) -> str:
    """Hand it in; the hash that an approver reads."""
    stage.submit(campaign)
    return version_hash(Campaign.objects.get(pk=campaign.pk))


def approving(campaign: Campaign, read: str, by: User) -> Callable[[], Campaign]:
    return lambda: services.campaign_approve(campaign_id=campaign.pk, version_hash=read, by=by)


@contextmanager
def without_guards(owner_dsn: str) -> Iterator[None]:
    """Moves as plain UPDATEs, no look at the state, and no rule of one valid approval."""

    def unguarded(campaign_id: Any, sources: Any, target: Any) -> Campaign:
        Campaign.objects.filter(pk=campaign_id).update(state=target)
        return Campaign.objects.get(pk=campaign_id)

    with psycopg.connect(owner_dsn, autocommit=True) as owner, ExitStack() as stack:
        row = owner.execute(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'approval_one_valid'"
        ).fetchone()
        assert row is not None
        owner.execute("DROP INDEX approval_one_valid")
        try:
            for module in (life, review):
                stack.enter_context(mock.patch.object(module, "_transition", unguarded))
            stack.enter_context(mock.patch.object(review, "require_state"))
            yield
        finally:
            stack.close()
            owner.execute("DELETE FROM campaign_campaignapproval")
            owner.execute(row[0])


def test_two_approvers_at_once() -> None:
    campaign, bob, carol = waiting(), stage.member("approver", "bob"), stage.member("approver", "c")
    for _ in range(TRIES):
        before = stage.audited(campaign).count("campaign.approve")
        read = in_review(campaign)

        said = at_once(approving(campaign, read, bob), approving(campaign, read, carol))

        assert sorted(said) == ["did", "transition_refused"]
        assert stage.audited(campaign).count("campaign.approve") == before + 1
        winner = [bob, carol][said.index("did")]
        approval = CampaignApproval.objects.get(campaign=campaign, revoked_at=None)
        assert (approval.approver, approval.version_hash) == (winner, read)
        assert Campaign.objects.get(pk=campaign.pk).state == "scheduled"
        services.campaign_send_back(campaign_id=campaign.pk, by=carol, reason="once more")
    assert invariants_check().holds


@pytest.mark.control
def test_control_without_the_guards_both_approve(owner_dsn: str) -> None:
    campaign, bob, carol = waiting(), stage.member("approver", "bob"), stage.member("approver", "c")
    read = in_review(campaign)

    with without_guards(owner_dsn):
        said = at_once(approving(campaign, read, bob), approving(campaign, read, carol))
        valid = CampaignApproval.objects.filter(revoked_at=None).count()

    assert said == ["did", "did"] and valid == 2
    assert stage.audited(campaign).count("campaign.approve") == 2


def editing(campaign: Campaign, name: str) -> Callable[[], Campaign]:
    ann = stage.member("operations", "ann")
    return lambda: services.campaign_update(
        campaign_id=campaign.pk, actor="staff:ann", by=ann, name_zh=name
    )


def test_an_approval_and_an_edit_at_once() -> None:
    """Whoever is first: in the end nobody's word stands for what nobody has read."""
    campaign, bob = waiting(), stage.member("approver", "bob")
    seen: Counter[str] = Counter()
    for number in range(TRIES):
        before = Counter(stage.audited(campaign))
        told = Notice.objects.filter(user=bob, kind="approval_voided").count()
        read = in_review(campaign)

        approved, edited = at_once(
            approving(campaign, read, bob), editing(campaign, f"第{number}版")
        )

        seen[approved] += 1
        assert edited == "did" and approved in ("did", "transition_refused")
        did = int(approved == "did")
        now = Counter(stage.audited(campaign))
        assert now["campaign.approve"] - before["campaign.approve"] == did
        assert now["campaign.update"] - before["campaign.update"] == 1
        assert now["campaign.approval_void"] - before["campaign.approval_void"] == 1
        # The approver is told that the approval is void, where there was one.
        voided = Notice.objects.filter(user=bob, kind="approval_voided").count() - told
        assert voided == did
        assert Campaign.objects.get(pk=campaign.pk).state == "draft"
        assert not CampaignApproval.objects.filter(campaign=campaign, revoked_at=None).exists()
    assert invariants_check().holds
    print("approve × edit:", dict(seen))


@pytest.mark.control
def test_control_an_edit_that_voids_nothing_leaves_an_approval_of_what_nobody_read() -> None:
    campaign, bob = waiting(), stage.member("approver", "bob")
    read = in_review(campaign)
    approving(campaign, read, bob)()

    with mock.patch.object(drafts.review, "void"):
        editing(campaign, "两百万")()

    campaign.refresh_from_db()
    approval = CampaignApproval.objects.get(campaign=campaign, revoked_at=None)
    assert campaign.state == "scheduled"
    assert approval.version_hash != version_hash(campaign)
    # The last line of defence: what starts is compared with what was read.
    with pytest.raises(ServiceError) as refusal:
        services.campaign_launch(campaign_id=campaign.pk, actor="x")
    assert refusal.value.code == "not_approved"


def test_a_launch_and_a_kill_at_once() -> None:
    seen: Counter[str] = Counter()
    for number in range(TRIES):
        campaign = stage.scheduled(budget_fen=50_000)

        launched, killed = at_once(
            lambda c=campaign: services.campaign_launch(campaign_id=c.pk, actor="staff:ann"),
            lambda c=campaign: services.campaign_kill(campaign_id=c.pk, actor="staff:bob"),
        )

        # A kill that comes first finds nothing to kill; one that comes second stops it for good.
        assert launched == "did" and killed in ("did", "transition_refused")
        seen[killed] += 1
        campaign.refresh_from_db()
        audited = stage.audited(campaign)
        assert audited.count("campaign.launch") == 1
        assert audited.count("campaign.kill") == int(killed == "did")
        packet, gate = stage.first_packet(campaign), Gate.objects.get(pk=campaign.gate_id)
        if killed == "did":
            assert (campaign.state, packet.state, gate.state) == ("killed", "closed", "closed")
            assert ledger.balance_fen(campaign.account_id) == 50_000
        else:
            assert (campaign.state, packet.state, gate.state) == ("live", "open", "open")
            assert ledger.balance_fen(campaign.account_id) == 40_000
        assert Transfer.objects.filter(reference=f"fund:{campaign.pk.hex}").count() == 1
        if number % 25 == 24:
            assert invariants_check().holds
    print("launch × kill:", dict(seen))


@pytest.mark.control
def test_control_without_the_condition_a_killed_campaign_comes_to_life(owner_dsn: str) -> None:
    campaign = stage.scheduled()

    with without_guards(owner_dsn):
        services.campaign_kill(campaign_id=campaign.pk, actor="staff:bob")
        services.campaign_launch(campaign_id=campaign.pk, actor="staff:ann")

    campaign.refresh_from_db()
    assert campaign.state == "live"  # it left a state that has no way out
    assert stage.audited(campaign)[-2:] == ["campaign.kill", "campaign.launch"]


def test_two_approvers_of_one_top_up_fund_it_once() -> None:
    campaign, ann = stage.live(budget_fen=50_000), stage.member("operations", "ann")
    bob, carol = stage.member("approver", "bob"), stage.member("finance", "c")
    for number in range(1, 21):
        asked = services.top_up_request(
            campaign_id=campaign.pk, extra_fen=1_000, reason="more", by=ann
        )

        said = at_once(
            lambda a=asked: services.top_up_approve(top_up_id=a.pk, by=bob),
            lambda a=asked: services.top_up_approve(top_up_id=a.pk, by=carol),
        )

        assert sorted(said) == ["did", "transition_refused"]
        assert TopUp.objects.get(pk=asked.pk).state == "approved"
        assert Transfer.objects.filter(kind="fund").count() == 1 + number
        assert ledger.balance_fen(campaign.account_id) == 40_000 + 1_000 * number
    assert stage.audited(campaign).count("campaign.top_up") == 20
    assert invariants_check().holds


def test_two_clocks_and_a_hand_launch_a_campaign_once() -> None:
    from campaign.tasks import campaign_clock

    campaign = stage.scheduled(budget_fen=50_000)
    with mock.patch("campaign.tasks.now", lambda: clock.now() + dt.timedelta(hours=1)):
        results = world.together(
            [
                campaign_clock,
                campaign_clock,
                lambda: services.campaign_launch(campaign_id=campaign.pk, actor="staff:ann"),
            ],
            threads=3,
        )

    assert not [
        r for r in results if isinstance(r, BaseException) and not isinstance(r, TransitionRefused)
    ]
    campaign.refresh_from_db()
    assert campaign.state == "live"
    assert stage.audited(campaign).count("campaign.launch") == 1
    assert stage.audited(campaign).count("campaign.launch_failed") == 0
    assert Transfer.objects.filter(kind="fund").count() == 1
