"""A second person's word on one exact version.

    draft ── submit ──> review ── approve ──> scheduled (or live, when its time has come)
      ^                   │                      │
      └──── send back, or any edit (void) ───────┘

Invariants kept here: nobody approves what they wrote, changed last or handed in; an approval names
the hash of what was approved (`campaign/versions.py`); at most one approval is valid, and none
outlives an edit. Edits and approvals lock the campaign's row first, so one of two at once comes
wholly before the other.
"""

from __future__ import annotations

import hmac
import uuid

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from campaign import rules
from campaign.convergence import campaign_locked
from campaign.disclosing.publishing import disclosure_publish
from campaign.models import Campaign, CampaignApproval, Notice
from campaign.people import actor_of
from campaign.services.common import State, audit, require_state, require_version, states
from campaign.services.common import transition as _transition
from campaign.services.life import campaign_launch
from campaign.services.notices import notices_send, people_who_may
from campaign.versions import campaign_document, document_hash
from engine.lib.clock import now
from engine.lib.errors import ServiceError

REASON_MAX_CHARS = 300


def campaign_submit(*, campaign_id: uuid.UUID, by: User, version: int | None = None) -> Campaign:
    """draft → review, once everything that a campaign needs is there; the approvers are told."""
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_version(campaign, version)
        campaign = _transition(campaign_id, (State.DRAFT,), State.REVIEW)
        rules.check_ready(campaign)
        Campaign.objects.filter(pk=campaign.pk).update(submitted_by=by, submitted_at=now())
        approvers = people_who_may("campaign.approve_campaign").exclude(pk=by.pk)
        notices_send(
            approvers, campaign=campaign, kind=Notice.Kind.REVIEW_REQUESTED, who=by.get_username()
        )
        audit(
            campaign,
            actor_of(by),
            "submit",
            {"state": State.DRAFT},
            {"state": State.REVIEW, "version_hash": document_hash(campaign_document(campaign))},
        )
    return Campaign.objects.get(pk=campaign_id)


def campaign_approve(*, campaign_id: uuid.UUID, version_hash: str, by: User) -> Campaign:
    """review → scheduled: this version may start, at its time and not before.

    `version_hash` is what the approver has read. One whose time has come is launched at once.
    """
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, (State.REVIEW,))
        _require_second_person(campaign, by)
        document = campaign_document(campaign)
        current = document_hash(document)
        if not hmac.compare_digest(current.encode(), version_hash.encode()):
            raise ServiceError(
                "version_hash",
                "changed_meanwhile",
                _("This isn't the version that you have read; look at it again."),
            )
        rules.check_ready(campaign)
        _transition(campaign_id, (State.REVIEW,), State.SCHEDULED)
        CampaignApproval.objects.create(
            campaign=campaign, version_hash=current, document=document, approver=by
        )
        disclosure_publish(campaign=campaign)
        notices_send(
            [campaign.created_by, campaign.submitted_by],
            campaign=campaign,
            kind=Notice.Kind.APPROVED,
            who=by.get_username(),
        )
        audit(
            campaign,
            actor_of(by),
            "approve",
            {"state": State.REVIEW},
            {"state": State.SCHEDULED, "version_hash": current},
        )
    if campaign.starts_at <= now():
        return campaign_launch(campaign_id=campaign_id, actor=actor_of(by))
    return Campaign.objects.get(pk=campaign_id)


def _require_second_person(campaign: Campaign, by: User) -> None:
    if by.pk in (campaign.created_by_id, campaign.submitted_by_id, campaign.edited_by_id):
        raise ServiceError(
            "",
            "own_work",
            _("Nobody approves a campaign that they made, changed last or handed in themselves."),
        )


def campaign_send_back(*, campaign_id: uuid.UUID, by: User, reason: str) -> Campaign:
    """review or scheduled → draft, with words on what to change."""
    if not reason.strip():
        raise ServiceError("reason", "blank", _("Say what has to change."))
    if len(reason) > REASON_MAX_CHARS:
        raise ServiceError(
            "reason", "too_long", _("This has at most %(most)s characters."), most=REASON_MAX_CHARS
        )
    with transaction.atomic():
        before = campaign_locked(campaign_id).state
        campaign = _transition(campaign_id, (State.REVIEW, State.SCHEDULED), State.DRAFT)
        _revoke(campaign, actor_of(by), reason)
        notices_send(
            {campaign.created_by, campaign.submitted_by} - {by},
            campaign=campaign,
            kind=Notice.Kind.SENT_BACK,
            who=by.get_username(),
            reason=reason,
        )
        audit(campaign, actor_of(by), "send_back", *states(before, State.DRAFT), reason=reason)
    return Campaign.objects.get(pk=campaign_id)


def campaign_launch_failed(*, campaign_id: uuid.UUID, actor: str, reason: str) -> None:
    """An approved campaign that can't start goes back to a draft, and its people are told why."""
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        if campaign.state != State.SCHEDULED:
            return
        _transition(campaign_id, (State.SCHEDULED,), State.DRAFT)
        approver = _revoke(campaign, actor, reason[:REASON_MAX_CHARS])
        notices_send(
            [campaign.created_by, campaign.submitted_by, approver],
            campaign=campaign,
            kind=Notice.Kind.LAUNCH_REFUSED,
            reason=reason,
        )
        audit(
            campaign, actor, "launch_failed", *states(State.SCHEDULED, State.DRAFT), reason=reason
        )


def void(campaign: Campaign, *, actor: str, by: User | None) -> None:
    """An edit takes a campaign that was handed in or approved back to a draft.

    Called under the campaign's lock, by every edit. The approver is told.
    """
    if campaign.state not in (State.REVIEW, State.SCHEDULED):
        return
    before = campaign.state
    _transition(campaign.pk, (State(before),), State.DRAFT)
    approver = _revoke(campaign, actor, "edited")
    who = by.get_username() if by is not None else actor
    notices_send([approver], campaign=campaign, kind=Notice.Kind.APPROVAL_VOIDED, who=who)
    audit(campaign, actor, "approval_void", *states(before, State.DRAFT))
    campaign.state = State.DRAFT


def _revoke(campaign: Campaign, actor: str, reason: str) -> User | None:
    """End the valid approval, where there is one; whose it was."""
    approval = (
        CampaignApproval.objects.filter(campaign=campaign, revoked_at=None)
        .select_related("approver")
        .first()
    )
    if approval is None:
        return None
    CampaignApproval.objects.filter(pk=approval.pk).update(
        revoked_at=now(), revoked_by=actor, revoke_reason=reason
    )
    return approval.approver
