"""What every act on a campaign is made of: the lock, the conditional move, the audit event."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from campaign.convergence import campaign_locked
from campaign.models import Campaign
from engine.lib.audit import audit_record
from engine.lib.clock import now
from engine.lib.errors import ServiceError, TransitionRefused
from packets import ledger
from packets.models import Account, Transfer

State = Campaign.State
States = tuple[Campaign.State, ...]
EDITABLE: States = (State.DRAFT, State.REVIEW, State.SCHEDULED)
RUNNING: States = (State.LIVE, State.PAUSED)


def transition(campaign_id: uuid.UUID, sources: States, target: Campaign.State) -> Campaign:
    """The conditional UPDATE. Of any number of callers exactly one finds the row as it wants it."""
    moved = Campaign.objects.filter(pk=campaign_id, state__in=sources).update(
        state=target, version=F("version") + 1, changed_at=now()
    )
    campaign = campaign_locked(campaign_id)
    if moved != 1:
        raise refusal(campaign, sources)
    return campaign


def refusal(campaign: Campaign, wanted: States) -> TransitionRefused:
    labels = {state.value: state.label for state in State}
    return TransitionRefused(f"{campaign.slug}", campaign.state, wanted, labels)


def require_state(campaign: Campaign, states: States) -> None:
    if campaign.state not in states:
        raise refusal(campaign, states)


def require_version(campaign: Campaign, version: int | None) -> None:
    """Refuse what was decided by the look of an older state; None: the caller doesn't mind."""
    if version is not None and campaign.version != version:
        raise ServiceError(
            "version", "changed_meanwhile", _("The campaign was changed meanwhile; look again.")
        )


def states(before: str, after: str) -> tuple[dict[str, str], dict[str, str]]:
    return {"state": str(before)}, {"state": str(after)}


def outside(campaign: Campaign) -> Account:
    """Where its money comes from and goes back to; of a drill, a world of its own."""
    drill = campaign.client_apps.filter(is_drill=True).values_list("pk", flat=True).first()
    return ledger.external_account(campaign.currency, drill=drill)


def fund(campaign: Campaign, amount_fen: int, reference: str) -> None:
    """Money from outside into the campaign's account."""
    ledger.post(
        [
            ledger.Entry(
                reference=reference,
                kind=Transfer.Kind.FUND,
                debit_account_id=outside(campaign).pk,
                credit_account_id=campaign.account_id,
                amount_fen=amount_fen,
                currency=campaign.currency,
            )
        ]
    )


def audit(
    campaign: Campaign,
    actor: str,
    verb: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
) -> None:
    audit_record(
        actor=actor,
        action=f"campaign.{verb}",
        object_type="campaign",
        object_id=campaign.pk.hex,
        before=dict(before) if before else None,
        after=dict(after) if after else None,
        reason=reason,
    )


def touched(campaign: Campaign, by: User | None) -> None:
    """The row's version goes up with every write, and it remembers who changed it last."""
    values: dict[str, Any] = {"version": F("version") + 1, "changed_at": now()}
    if by is not None:
        values["edited_by"] = by
    Campaign.objects.filter(pk=campaign.pk).update(**values)
