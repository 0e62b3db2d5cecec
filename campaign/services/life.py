"""A campaign's life. Every state change is one conditional UPDATE whose row count is looked at,
with its money and one audit event in the same transaction.

    scheduled ─> live <─> paused ─> ended ──> settled
                  └──────┴──────> killed ──┘

A transition first becomes true in Postgres, then `campaign_converge` brings the gate and the
packets in line with it. A process that dies in between leaves work that the clock (`tasks.py`)
finds and does: converging is safe to repeat and safe to run twice at once.
"""

from __future__ import annotations

import uuid

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from campaign import rules, selectors
from campaign.convergence import campaign_converge, campaign_locked
from campaign.models import Campaign, CampaignApproval
from campaign.services.common import RUNNING, State, States, audit, fund, outside, states
from campaign.services.common import transition as _transition
from campaign.services.events import campaign_tell
from campaign.versions import version_hash
from engine.lib.audit import audit_record
from engine.lib.clock import now
from engine.lib.errors import ServiceError
from engine.lib.outbox import EventKind
from packets import ledger
from packets import services as packet_services
from packets.holds.holding import accounts_lock
from packets.models import Gate, Packet, Transfer


def campaign_launch(*, campaign_id: uuid.UUID, actor: str) -> Campaign:
    """scheduled → live: the whole budget enters the campaign's account, and its packets open.

    All of it or nothing: a packet that can't open undoes the launch. What starts is what was
    approved, to the byte: another version is refused whatever state it says it is in.
    """
    with transaction.atomic():
        campaign = _transition(campaign_id, (State.SCHEDULED,), State.LIVE)
        approval = CampaignApproval.objects.filter(campaign=campaign, revoked_at=None).first()
        if approval is None or approval.version_hash != version_hash(campaign):
            raise ServiceError(
                "", "not_approved", _("Nobody has approved this version of the campaign.")
            )
        if not campaign.links.exists():
            raise ServiceError(
                "packets", "blank", _("A campaign without packets can't be launched.")
            )
        rules.check_sum(campaign, extra_fen=0)
        over = Packet.objects.filter(campaign_link__campaign=campaign, closes_at__lte=now())
        if campaign.ends_at <= now() or over.exists():
            raise ServiceError(
                "ends_at", "in_the_past", _("The end of the campaign or of a packet has passed.")
            )
        Campaign.objects.filter(pk=campaign.pk).update(launched_at=now())
        fund(campaign, campaign.budget_fen, f"fund:{campaign.pk.hex}")
        for link in campaign.links.order_by("packet"):
            packet_services.packet_open(packet_id=link.packet_id, actor=actor)
        campaign_tell(campaign, EventKind.CAMPAIGN_LAUNCHED)
        audit(
            campaign,
            actor,
            "launch",
            {"state": State.SCHEDULED},
            {"state": State.LIVE, "version_hash": approval.version_hash},
        )
    return campaign_converge(campaign_id=campaign_id, actor=actor)


def campaign_pause(*, campaign_id: uuid.UUID, actor: str, reason: str = "") -> Campaign:
    """live → paused: no portion is given until it is resumed; no money moves."""
    _move(campaign_id, (State.LIVE,), State.PAUSED, actor, "pause", reason)
    return campaign_converge(campaign_id=campaign_id, actor=actor, reason=reason)


def campaign_resume(*, campaign_id: uuid.UUID, actor: str, reason: str = "") -> Campaign:
    """paused → live."""
    _move(campaign_id, (State.PAUSED,), State.LIVE, actor, "resume", reason)
    return campaign_converge(campaign_id=campaign_id, actor=actor, reason=reason)


def campaign_kill(*, campaign_id: uuid.UUID, actor: str, reason: str = "") -> Campaign:
    """live or paused → killed, for good: what nobody claimed returns to the campaign's account."""
    _move(campaign_id, RUNNING, State.KILLED, actor, "kill", reason)
    return campaign_converge(campaign_id=campaign_id, actor=actor, reason=reason)


def campaign_end(*, campaign_id: uuid.UUID, actor: str, reason: str = "") -> Campaign:
    """live or paused → ended: the same move of money as a kill, said as the planned end."""
    _move(campaign_id, RUNNING, State.ENDED, actor, "end", reason)
    return campaign_converge(campaign_id=campaign_id, actor=actor, reason=reason)


def campaign_settle(*, campaign_id: uuid.UUID, actor: str) -> Campaign:
    """ended or killed → settled: what is left of the budget goes back outside, once.

    Refused while a packet is still open, while a claim waits for settlement or is parked, and while
    a hold of its money is open: it could come back into an account that nobody looks at any more.
    """
    with transaction.atomic():
        before = campaign_locked(campaign_id).state
        campaign = _transition(campaign_id, (State.ENDED, State.KILLED), State.SETTLED)
        money = selectors.campaign_money(campaign)
        if money.open_packets:
            raise ServiceError(
                "packets",
                "packets_open",
                _("Packets that are not closed yet: %(count)s."),
                count=money.open_packets,
            )
        if money.unsettled_count:
            raise ServiceError(
                "claims",
                "claims_unsettled",
                _("Claims that wait for settlement: %(count)s."),
                count=f"{money.unsettled_count:,}",
            )
        if money.parked_count:
            raise ServiceError(
                "claims",
                "claims_parked",
                _("Claims whose settlement was refused: %(count)s."),
                count=f"{money.parked_count:,}",
            )
        if money.open_holds:
            raise ServiceError(
                "holds",
                "holds_open",
                _("Holds that nobody has decided yet: %(count)s."),
                count=f"{money.open_holds:,}",
            )
        left_fen = ledger.balance_fen(campaign.account_id)
        if left_fen:
            ledger.post(
                [
                    ledger.Entry(
                        reference=f"refund:{campaign.pk.hex}",
                        kind=Transfer.Kind.REFUND,
                        debit_account_id=campaign.account_id,
                        credit_account_id=outside(campaign).pk,
                        amount_fen=left_fen,
                        currency=campaign.currency,
                    )
                ]
            )
        audit(campaign, actor, "settle", *states(before, State.SETTLED))
    return Campaign.objects.get(pk=campaign_id)


def campaign_return_late(*, campaign_id: uuid.UUID, actor: str) -> int:
    """What came back to a settled campaign goes outside as well; how much.

    Nothing that waits keeps a settled campaign from being so, but settled money can be held out of
    a wallet for years, and forfeited then.
    """
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        outside_id = outside(campaign).pk
        # What comes in between the two looks would give its name to an amount without it.
        accounts_lock([campaign.account_id, outside_id])
        late_fen = ledger.balance_fen(campaign.account_id)
        if campaign.state != State.SETTLED or not late_fen:
            return 0
        newest = Transfer.objects.filter(credit_account=campaign.account_id).latest("id")
        ledger.post(
            [
                ledger.Entry(
                    reference=f"refund:{campaign.pk.hex}:{newest.pk}",
                    kind=Transfer.Kind.REFUND,
                    debit_account_id=campaign.account_id,
                    credit_account_id=outside_id,
                    amount_fen=late_fen,
                    currency=campaign.currency,
                )
            ]
        )
        audit(campaign, actor, "return_late", None, {"returned_fen": late_fen})
    return late_fen


def kill_switch_all(*, on: bool, actor: str, reason: str = "") -> Gate:
    """Stops (or allows again) every claim of every campaign, by the gate before them all.

    The gate is paused, not closed: people hear `paused`, which is not final, so that switching it
    off again breaks no promise.
    """
    gate = Gate.objects.filter(key=Gate.ALL).first() or packet_services.gate_create(key=Gate.ALL)
    wanted = Gate.State.PAUSED if on else Gate.State.OPEN
    before = gate.state
    packet_services.gate_set(gate_id=gate.pk, state=wanted, reason=reason, actor=actor)
    audit_record(
        actor=actor,
        action="kill_switch.on" if on else "kill_switch.off",
        object_type="gate",
        object_id=gate.key,
        before={"state": before},
        after={"state": wanted},
        reason=reason,
    )
    gate.refresh_from_db()
    return gate


def _move(
    campaign_id: uuid.UUID,
    sources: States,
    target: Campaign.State,
    actor: str,
    verb: str,
    reason: str,
) -> None:
    """A transition that moves no money by itself."""
    with transaction.atomic():
        before = campaign_locked(campaign_id).state
        campaign = _transition(campaign_id, sources, target)
        if target in (State.ENDED, State.KILLED):
            campaign_tell(campaign, EventKind.CAMPAIGN_ENDED)
        audit(campaign, actor, verb, *states(before, target), reason=reason)
