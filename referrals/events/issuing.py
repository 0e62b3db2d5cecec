"""A due occasion becomes a ticket, unless a cap says no. One transaction decides and issues.

Whoever decides for an owner (whose caps count) has them alone, so two workers can't both give the
last ticket of a day. The ticket's key names rule, person and occasion for ever: after a crash, or
by two workers at once, it is the same ticket.
"""

from __future__ import annotations

from typing import assert_never

from django.db import connection, transaction

from campaign.models import CampaignGrowth
from engine.lib.errors import ServiceError, TransitionRefused
from packets.models import Participant
from packets.tickets import OWN_KEYS, ticket_issue
from referrals import due
from referrals.models import TicketDue, TicketRule

State = TicketDue.State


def ticket_key(row: TicketDue) -> str:
    """Within 128 characters: a mission's name has 64, a person 32 digits."""
    return f"{OWN_KEYS}rule:{row.rule_id}:{bytes(row.participant).hex()}:{row.occasion}"


def due_run(*, due_id: int) -> str:
    """Decide this occasion; says how it stands afterwards. Repeating changes nothing."""
    with transaction.atomic():
        row = (
            TicketDue.objects.select_for_update(of=("self",)).select_related("rule").get(pk=due_id)
        )
        if row.state != State.WAITING:
            return str(row.state)
        _alone(row)
        if _is_capped(row):
            row.state, row.trouble = State.CAPPED, ""
        else:
            _issue(row)
        row.next_attempt_at = None if row.state != State.WAITING else row.next_attempt_at
        row.save(update_fields=["state", "trouble", "next_attempt_at"])
    return str(row.state)


def _issue(row: TicketDue) -> None:
    person = Participant.objects.filter(digest=row.participant).first()
    if person is None:
        row.trouble = "unknown person"  # their name comes with their first claim, event or binding
        return
    try:
        with transaction.atomic():
            ticket_issue(
                packet_id=row.rule.packet_id,
                client_app_id=row.client_app_id,
                subject=person.subject,
                key=ticket_key(row),
                reason=_reason(row),
            )
        row.state, row.trouble = State.ISSUED, ""
    except TransitionRefused:
        row.state, row.trouble = State.REFUSED, "the packet is closed"
    except ServiceError as refusal:
        row.state, row.trouble = State.REFUSED, f"{refusal.field}: {refusal.code}"


def _reason(row: TicketDue) -> str:
    """What stands on the ticket; English, like all that an app's back end reads."""
    match TicketRule.By(row.rule.by):
        case TicketRule.By.DAILY:
            return f"active on {row.occasion}"
        case TicketRule.By.MISSION:
            return f"mission: {row.occasion}"
        case TicketRule.By.INVITE:
            return "invited a friend"
        case TicketRule.By.FRIEND:
            return "came with a friend's link"
        case unknown:
            assert_never(unknown)


def _alone(row: TicketDue) -> None:
    # guard:owner begin
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"tickets:{row.rule_id}:{bytes(row.owner).hex()}"],
        )
    # guard:owner end


def _is_capped(row: TicketDue) -> bool:
    issued = TicketDue.objects.filter(rule=row.rule_id, owner=row.owner, state=State.ISSUED)
    if issued.count() >= _most_in_all(row.rule):
        return True
    return issued.filter(day=row.day).count() >= row.rule.a_day


def _most_in_all(rule: TicketRule) -> int:
    """Of a shared packet the campaign says how many friends may come."""
    if rule.by != TicketRule.By.FRIEND:
        return rule.in_all
    growth = CampaignGrowth.objects.filter(campaign=rule.campaign_id, is_on=True).first()
    return min(rule.in_all, growth.shared_friends if growth else 0)


def dues_run(*, limit: int) -> int:
    """Decide what is due, so many at most; how many were looked at."""
    taken = due.lease(TicketDue, "state = 'waiting'", limit)
    for due_id in taken:
        due_run(due_id=int(due_id))
    return len(taken)
