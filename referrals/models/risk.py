"""People who seem to be one person many times, what is decided about them, and by which policy."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign


class Decision(models.TextChoices):
    """What follows from a score, the milder first; below the lowest of them nothing does.

    `challenge`: further rewards wait until the person has answered a challenge of the app's.
    `hold`: rewards are granted, and their money waits for a reviewer. `deny`: what was granted is
    held, and nothing more is granted. Each ends for good when a reviewer lets the people go.
    """

    CHALLENGE = "challenge", _("challenge")
    HOLD = "hold", _("hold")
    DENY = "deny", _("deny")


class Rules(models.Model):
    """From which score what follows, and what each reason adds to a score (0: it is off)."""

    challenge_at = models.PositiveSmallIntegerField(_("challenge from"), null=True)
    hold_at = models.PositiveSmallIntegerField(_("hold from"))
    deny_at = models.PositiveSmallIntegerField(_("deny from"), null=True)
    weights = models.JSONField(_("points"))

    class Meta:
        abstract = True


def _in_order(name: str) -> models.CheckConstraint:
    return models.CheckConstraint(
        condition=Q(hold_at__gte=1, hold_at__lte=100)
        & (Q(challenge_at=None) | Q(challenge_at__gte=1, challenge_at__lte=F("hold_at")))
        & (Q(deny_at=None) | Q(deny_at__gte=F("hold_at"), deny_at__lte=100)),
        name=name,
    )


class RiskTrial(Rules):
    """A draft of a policy, tried on the newest referrals before it may be published.

    The rules are written once: another draft is another row. `result` grows campaign by campaign,
    and is complete when `done_at` is there; whoever is killed in between is repeated from the
    start. `next_attempt_at` is a lease by Postgres's clock.
    """

    against = models.ForeignKey(
        "referrals.RiskPolicy", models.PROTECT, related_name="+", verbose_name=_("compared with")
    )
    most = models.PositiveIntegerField(_("people looked at, at most"))
    asked_by = models.CharField(_("asked by"), max_length=150)
    asked_at = models.DateTimeField(_("asked at"), db_default=Now())
    seen = models.PositiveIntegerField(_("people looked at"), db_default=0)
    result: models.JSONField[Any, Any] = models.JSONField(_("result"), default=dict)
    done_at = models.DateTimeField(_("done at"), null=True)
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True, db_default=Now())
    attempts = models.PositiveIntegerField(_("attempts"), db_default=0)

    class Meta:
        verbose_name = _("dry run of a risk policy")
        verbose_name_plural = _("dry runs of risk policies")
        indexes = [
            models.Index(
                fields=["next_attempt_at"], name="risktrial_due", condition=Q(done_at=None)
            )
        ]
        constraints = [_in_order("risktrial_in_order")]

    def __str__(self) -> str:
        return str(self.pk)


class RiskPolicy(Rules):
    """A version of the policy: in force until a higher one is there, and never changed."""

    version = models.PositiveIntegerField(_("version"), unique=True)
    trial = models.OneToOneField(
        RiskTrial, models.PROTECT, null=True, related_name="policy", verbose_name=_("dry run")
    )
    reason = models.CharField(_("reason"), max_length=200)
    published_by = models.CharField(_("published by"), max_length=150)
    published_at = models.DateTimeField(_("published at"), db_default=Now())

    class Meta:
        verbose_name = _("risk policy")
        verbose_name_plural = _("risk policy")
        constraints = [_in_order("riskpolicy_in_order")]

    def __str__(self) -> str:
        return str(self.version)


class RiskLook(models.Model):
    """When a campaign's people were last looked at, and until when it is left alone."""

    campaign = models.OneToOneField(
        Campaign,
        models.PROTECT,
        primary_key=True,
        related_name="risk_look",
        verbose_name=_("campaign"),
    )
    policy = models.ForeignKey(
        RiskPolicy, models.PROTECT, related_name="+", verbose_name=_("by version")
    )
    looked_at = models.DateTimeField(_("looked at"))
    rests_until = models.DateTimeField(_("rests until"))

    class Meta:
        verbose_name = _("look at a campaign")
        verbose_name_plural = _("looks at campaigns")

    def __str__(self) -> str:
        return f"{self.campaign_id} {self.looked_at}"


class RiskCase(models.Model):
    """One cluster of one campaign. Who joins it later is added to it; when it is seen with a score
    that asks for more, score, evidence and decision are the newer ones. It never gets milder by
    itself."""

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="risk_cases", verbose_name=_("campaign")
    )
    score = models.PositiveSmallIntegerField(_("score"))
    # By reason (referrals/risk/detectors.py), the numbers that were seen; never an identifier.
    evidence = models.JSONField(_("evidence"), default=dict)
    decision = models.CharField(
        _("decision"), max_length=9, choices=Decision.choices, db_default=Decision.HOLD
    )
    policy = models.ForeignKey(
        RiskPolicy,
        models.PROTECT,
        null=True,
        related_name="cases",
        verbose_name=_("by version"),
    )
    opened_at = models.DateTimeField(_("found at"), db_default=Now())

    class Meta:
        verbose_name = _("risk case")
        verbose_name_plural = _("risk cases")
        indexes = [models.Index(fields=["campaign", "-id"], name="riskcase_campaign")]
        constraints = [
            models.CheckConstraint(condition=Q(score__gte=1, score__lte=100), name="riskcase_score")
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id}: {self.pk}"


class RiskMember(models.Model):
    """A person of a case: of one case in a campaign, for ever.

    `cleared_at`: nothing follows from the case for this person any more; by a reviewer, or by an
    answered challenge.
    """

    case = models.ForeignKey(
        RiskCase, models.PROTECT, related_name="members", verbose_name=_("risk case")
    )
    campaign = models.ForeignKey(
        Campaign,
        models.PROTECT,
        related_name="+",
        verbose_name=_("campaign"),
        db_index=False,
    )
    participant = models.BinaryField(_("participant"), max_length=16)
    added_at = models.DateTimeField(_("added at"), db_default=Now())
    cleared_at = models.DateTimeField(_("let go at"), null=True)
    cleared_by = models.CharField(_("let go by"), max_length=150, blank=True, db_default="")

    class Meta:
        verbose_name = _("person of a risk case")
        verbose_name_plural = _("people of risk cases")
        constraints = [
            models.UniqueConstraint(fields=["campaign", "participant"], name="riskmember_once")
        ]

    def __str__(self) -> str:
        return bytes(self.participant).hex()


class RiskReward(models.Model):
    """A reward that was looked at because of a case, once. `hold`: empty where nothing was left."""

    member = models.ForeignKey(
        RiskMember, models.PROTECT, related_name="rewards", verbose_name=_("person")
    )
    reward = models.OneToOneField(
        "referrals.Reward", models.PROTECT, related_name="risk", verbose_name=_("reward")
    )
    hold = models.OneToOneField(
        "packets.Hold", models.PROTECT, null=True, related_name="risk", verbose_name=_("hold")
    )

    class Meta:
        verbose_name = _("reward of a risk case")
        verbose_name_plural = _("rewards of risk cases")

    def __str__(self) -> str:
        return f"{self.member_id}: {self.reward_id}"


class RiskAct(models.Model):
    """One act of a reviewer on a whole case, carried out a little at a time.

    Whoever is killed in between leaves it due (`next_attempt_at` is a lease by Postgres's clock),
    and what was done already isn't done again.
    """

    class Kind(models.TextChoices):
        RELEASE = "release", _("release all")
        FORFEIT = "forfeit", _("forfeit all")
        BAN = "ban", _("ban all")

    case = models.ForeignKey(
        RiskCase, models.PROTECT, related_name="acts", verbose_name=_("risk case")
    )
    kind = models.CharField(_("act"), max_length=8, choices=Kind.choices)
    reason = models.CharField(_("reason"), max_length=200)
    actor = models.CharField(_("who"), max_length=150)
    asked_at = models.DateTimeField(_("asked at"), db_default=Now())
    of = models.PositiveIntegerField(_("to be done"))
    done = models.PositiveIntegerField(_("done"), db_default=0)
    done_at = models.DateTimeField(_("done at"), null=True)
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True, db_default=Now())
    attempts = models.PositiveIntegerField(_("attempts"), db_default=0)

    class Meta:
        verbose_name = _("act on a risk case")
        verbose_name_plural = _("acts on risk cases")
        indexes = [
            models.Index(fields=["next_attempt_at"], name="riskact_due", condition=Q(done_at=None))
        ]
        constraints = [
            # One at a time: a case isn't released and forfeited at once.
            models.UniqueConstraint(
                fields=["case"], name="riskact_alone", condition=Q(done_at=None)
            )
        ]

    def __str__(self) -> str:
        return f"{self.case_id}: {self.kind}"
