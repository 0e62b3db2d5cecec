"""What is still to be granted and issued: referrals that qualify, rules of tickets, tickets due.

These rows are the work that is left, and how it ended; what was given stands in Reward and Ticket.
`next_attempt_at` is by Postgres's clock alone.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign
from referrals.models.forest import Referral

MISSION_MAX_CHARS = 64
# Tickets of one rule for one person; a packet takes a thousand of one person from all rules.
MAX_TICKETS = 1_000


class Qualification(models.Model):
    """Whether a referral has earned its rewards. A trigger makes the row with the referral.

    New: due at once, to look whether the friend has claimed before the binding was written. Then it
    waits (`next_attempt_at` NULL) until a claim or an event wakes it; `qualified_by` says which.
    """

    referral = models.OneToOneField(
        Referral,
        models.PROTECT,
        primary_key=True,
        related_name="qualification",
        verbose_name=_("referral"),
    )
    qualified_by = models.CharField(_("earned by"), max_length=160, blank=True, db_default="")
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True, db_default=Now())
    attempts = models.PositiveIntegerField(_("attempts"), db_default=0)
    trouble = models.CharField(_("why it waits"), max_length=200, blank=True, db_default="")
    done_at = models.DateTimeField(_("done at"), null=True)

    class Meta:
        verbose_name = _("qualification")
        verbose_name_plural = _("qualifications")
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                name="qualification_due",
                condition=Q(next_attempt_at__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"{self.referral_id}: {self.qualified_by or 'waits'}"


class TicketRule(models.Model):
    """For what people get a ticket of a packet by themselves, and how many at most."""

    class By(models.TextChoices):
        DAILY = "daily", _("a day on which they were active or claimed")
        MISSION = "mission", _("a mission that they did")
        INVITE = "invite", _("a friend they invited, once the friend qualifies")
        FRIEND = "friend", _("coming with somebody's link (a shared packet)")

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="ticket_rules", verbose_name=_("campaign")
    )
    packet = models.ForeignKey(
        "packets.Packet", models.PROTECT, related_name="+", verbose_name=_("packet")
    )
    by = models.CharField(_("given for"), max_length=8, choices=By.choices)
    mission = models.CharField(_("mission"), max_length=MISSION_MAX_CHARS, blank=True)
    a_day = models.PositiveIntegerField(_("at most a day and person"), default=1)
    in_all = models.PositiveIntegerField(_("at most in all and person"), default=30)
    is_active = models.BooleanField(_("on"), default=True)
    note = models.CharField(_("note"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("made at"), db_default=Now())
    changed_at = models.DateTimeField(_("changed at"), auto_now=True)

    class Meta:
        verbose_name = _("ticket rule")
        verbose_name_plural = _("ticket rules")
        indexes = [models.Index(fields=["campaign", "by"], name="ticketrule_campaign")]
        constraints = [
            models.CheckConstraint(
                condition=Q(a_day__gte=1, a_day__lte=MAX_TICKETS)
                & Q(in_all__gte=1, in_all__lte=MAX_TICKETS),
                name="ticketrule_caps",
            ),
            models.CheckConstraint(
                condition=Q(by="mission") & ~Q(mission="") | ~Q(by="mission") & Q(mission=""),
                name="ticketrule_mission",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.campaign}: {self.by}"


class TicketDue(models.Model):
    """One occasion on which a rule gives somebody a ticket: found once, decided once.

    `owner` is whose caps count: who gets the ticket, or for a shared packet whoever shares it.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        ISSUED = "issued", _("issued")
        CAPPED = "capped", _("not issued: the most was reached")
        REFUSED = "refused", _("not issued: the packet gives none")

    rule = models.ForeignKey(
        TicketRule, models.PROTECT, related_name="dues", verbose_name=_("ticket rule")
    )
    participant = models.BinaryField(_("participant"), max_length=16)
    owner = models.BinaryField(_("counted for"), max_length=16)
    client_app_id = models.BigIntegerField(_("client app"))
    # The day, the mission's name, or the referral.
    occasion = models.CharField(_("occasion"), max_length=MISSION_MAX_CHARS)
    day = models.DateField(_("day"))
    state = models.CharField(
        _("state"), max_length=8, choices=State.choices, db_default=State.WAITING
    )
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True, db_default=Now())
    attempts = models.PositiveIntegerField(_("attempts"), db_default=0)
    trouble = models.CharField(_("why it waits"), max_length=200, blank=True, db_default="")

    class Meta:
        verbose_name = _("ticket of a rule")
        verbose_name_plural = _("tickets of rules")
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                name="ticketdue_due",
                condition=Q(state="waiting"),
            ),
            models.Index(fields=["rule", "owner", "day"], name="ticketdue_owner"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["rule", "participant", "occasion"], name="ticketdue_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.rule_id}: {self.occasion}"


class ClaimCursor(models.Model):
    """How far growth has read a lane's claims. Positions have no gaps, so nothing is missed."""

    lane = models.OneToOneField(
        "packets.Lane",
        models.PROTECT,
        primary_key=True,
        related_name="growth_cursor",
        verbose_name=_("lane"),
    )
    position = models.BigIntegerField(_("position"), db_default=0)

    class Meta:
        verbose_name = _("claims read for growth")
        verbose_name_plural = _("claims read for growth")

    def __str__(self) -> str:
        return f"{self.lane_id}: {self.position}"
