"""The risk policy on the desk: the version in force, drafts as dry runs, and publishing one.

Who may see risk rules sees it; who may change them tries drafts and publishes. A draft can't be
published but from the page of its dry run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import actor_of, dress, moment, money, require, stamp
from engine.lib.errors import ServiceError
from engine.staff.confirm import ConfirmedAct, Consequence, DressedForm, confirm
from engine.staff.pages import page
from referrals.models import RiskPolicy, RiskTrial
from referrals.models.risk import Rules
from referrals.risk.policy import SCORE_MAX, Policy, policy_in_force, policy_of, policy_publish
from referrals.risk.reasons import Reason
from referrals.risk.trials import trial_ask
from referrals.risk.words import DECISIONS, REASONS

SEE = "packets.view_riskrule"
CHANGE = "packets.change_riskrule"
VERSIONS_SHOWN, TRIALS_SHOWN = 20, 10
# How each decision is drawn; nothing says more than a long red bar.
COLOURS = {"allow": "#98a2b3", "challenge": "#1d4ed8", "hold": "#f0a020", "deny": "#b91c1c"}
THRESHOLDS = (
    ("challenge_at", gettext_lazy("Challenge from")),
    ("hold_at", gettext_lazy("Hold from")),
    ("deny_at", gettext_lazy("Deny from")),
)


def urls(view: Callable[..., Any]) -> list[URLPattern]:
    name = "referrals_riskpolicy"
    return [
        path("policy/", view(policy_page), name=name),
        path("policy/trial/<int:trial_id>/", view(trial_page), name=f"{name}_trial"),
        path("policy/trial/<int:trial_id>/publish/", view(publish), name=f"{name}_publish"),
    ]


class PolicyForm(DressedForm):
    """Scores and points. An empty score: that never follows."""

    challenge_at = forms.IntegerField(
        label=THRESHOLDS[0][1],
        required=False,
        help_text=gettext_lazy("Points. Further rewards wait for the app's challenge; empty: off."),
    )
    hold_at = forms.IntegerField(
        label=THRESHOLDS[1][1],
        help_text=gettext_lazy("Points. What was earned waits for a reviewer."),
    )
    deny_at = forms.IntegerField(
        label=THRESHOLDS[2][1],
        required=False,
        help_text=gettext_lazy("Points. Nothing further is granted; empty: off."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for reason, words in REASONS.items():
            field = forms.IntegerField(min_value=0, max_value=SCORE_MAX)
            field.label = str(words)
            dress(field)
            self.fields[reason.value] = field

    @property
    def policy(self) -> Policy:
        data = self.cleaned_data
        return Policy(
            challenge_at=data["challenge_at"],
            hold_at=data["hold_at"],
            deny_at=data["deny_at"],
            weights={reason: data[reason.value] for reason in Reason},
        )


def _typed(policy: Policy) -> dict[str, int | None]:
    scores = {name: getattr(policy, name) for name, _label in THRESHOLDS}
    return {**scores, **{reason.value: points for reason, points in policy.weights.items()}}


def policy_page(request: HttpRequest) -> HttpResponse:
    """The version in force, the form of a draft, and what was before."""
    require(request, SEE)
    row = policy_in_force()
    may = request.user.has_perm(CHANGE)
    form = PolicyForm(request.POST if request.method == "POST" else None)
    form.initial = _typed(policy_of(row))
    if request.method == "POST":
        require(request, CHANGE)
        if form.is_valid():
            try:
                trial = trial_ask(draft=form.policy, actor=actor_of(request))
            except ServiceError as refusal:
                form.refuse(refusal)
            else:
                return HttpResponseRedirect(_trial_address(trial.pk))
    return page(
        request,
        "referrals/risk_policy.html",
        _("Risk policy"),
        status=422 if form.is_bound else 200,
        row=row,
        published=moment(row.published_at),
        rules=_rules(row, row),
        form=form if may else None,
        versions=[
            {"row": one, "at": stamp(one.published_at)}
            for one in RiskPolicy.objects.order_by("-version")[:VERSIONS_SHOWN]
        ],
        trials=[
            {"row": one, "at": stamp(one.asked_at), "address": _trial_address(one.pk)}
            for one in RiskTrial.objects.select_related("policy").order_by("-id")[:TRIALS_SHOWN]
        ],
    )


def _trial_address(trial_id: int) -> str:
    return reverse("admin:referrals_riskpolicy_trial", args=[trial_id])


def _rules(mine: Rules, other: Rules) -> list[dict[str, Any]]:
    """Every number of a policy, beside that of another one."""
    one, two = _typed(policy_of(mine)), _typed(policy_of(other))
    labels = dict(THRESHOLDS) | {reason.value: label for reason, label in REASONS.items()}
    return [
        {
            "name": labels[name],
            "value": _number(name, value),
            "other": _number(name, two[name]),
            "differs": value != two[name],
            "bar": value or 0,
        }
        for name, value in one.items()
    ]


def _number(name: str, value: int | None) -> str:
    if value is None:
        return _("never")
    return _("off") if value == 0 and name in set(Reason) else str(value)


# --- a draft that is tried ------------------------------------------------------------------------


def trial_page(request: HttpRequest, trial_id: int) -> HttpResponse:
    require(request, SEE)
    trial = get_object_or_404(RiskTrial.objects.select_related("against"), pk=trial_id)
    progress = {
        "percent": 100 if trial.done_at else min(99, round(100 * trial.seen / trial.most)),
        "rows": f"{trial.seen:,}",
        "finished": trial.done_at is not None,
    }
    if request.GET.get("as") == "json":
        return JsonResponse(progress, headers={"Cache-Control": "no-store"})
    policy = RiskPolicy.objects.filter(trial=trial).first()
    return page(
        request,
        "referrals/risk_trial.html",
        _("Dry run %(id)s") % {"id": trial.pk},
        trial=trial,
        policy=policy,
        progress=progress,
        done_at=moment(trial.done_at) if trial.done_at else "",
        rules=_rules(trial, trial.against),
        result=_result(trial) if trial.done_at else None,
        back=reverse("admin:referrals_riskpolicy"),
        publish=reverse("admin:referrals_riskpolicy_publish", args=[trial.pk])
        if trial.done_at and policy is None and request.user.has_perm(CHANGE)
        else "",
    )


def _result(trial: RiskTrial) -> dict[str, Any]:
    said = trial.result
    return {
        "people": f"{said['people']:,}",
        "campaigns": f"{said['campaigns']:,}",
        "bars": [
            (_("In force"), _bar(said["before"], said["people"])),
            (_("This draft"), _bar(said["after"], said["people"])),
        ],
        "rules": [
            {"words": REASONS[Reason(code)], "counts": _counts(counts)}
            for code, counts in sorted(said["rules"].items(), key=lambda one: -sum(one[1].values()))
        ],
        "decisions": list(DECISIONS.values()),
        "changes": [_change(said, change) for change in sorted(said["changes"])],
    }


def _counts(counts: dict[str, int]) -> list[str]:
    return [f"{counts.get(name, 0):,}" for name in DECISIONS]


def _bar(counts: dict[str, int], people: int) -> list[dict[str, Any]]:
    """Of a hundred: what is decided about whom. Few people are drawn wide enough to be seen."""
    x, parts = 0.0, []
    suspected = [name for name in DECISIONS if name != "allow" and counts.get(name)]
    for name in [*suspected, "allow"]:
        share = 100 * counts.get(name, 0) / max(people, 1)
        width = 100 - x if name == "allow" else max(share, 2.0)
        parts.append(
            {
                "x": round(x, 2),
                "width": round(max(width, 0), 2),
                "colour": COLOURS[name],
                "label": DECISIONS[name],
                "count": f"{counts.get(name, 0):,}",
                "share": f"{share:.2f} %",
            }
        )
        x += width
    return parts


def _change(said: dict[str, Any], change: str) -> dict[str, Any]:
    was, now = change.split(">")
    return {
        "code": f"{was}-{now}",
        "was": DECISIONS[was],
        "now": DECISIONS[now],
        "people": f"{said['changes'][change]:,}",
        "rewards": f"{said['rewards'].get(change, 0):,}",
        "amount": money(said["fen"].get(change, 0)),
        "named": [
            (person[:8], reverse("admin:referrals_person", args=[campaign, person]))
            for campaign, person in said["named"].get(change, [])
        ],
    }


def publish(request: HttpRequest, trial_id: int) -> HttpResponse:
    """Put a tried draft in force: what changes for whom, a reason, then done."""
    require(request, CHANGE)
    trial = get_object_or_404(RiskTrial.objects.select_related("against"), pk=trial_id)
    changes = trial.result.get("changes", {})
    act = ConfirmedAct(
        label=gettext_lazy("Publish"),
        icon="publish",
        money=False,
        about=_("Dry run %(id)s") % {"id": trial.pk},
        consequence=Consequence(
            _("From the next look on, clusters are decided by these rules in all campaigns."),
            (
                _("What was decided already stays: nobody is let go, and nothing is released."),
                _("A version is never changed; the next one can take it back."),
            ),
            tuple(
                (f"{DECISIONS[was]} → {DECISIONS[now]}", f"{count:,}")
                for change, count in sorted(changes.items())
                for was, now in [change.split(">")]
            ),
        ),
        run=lambda data: policy_publish(
            trial_id=trial.pk, actor=actor_of(request), reason=data["reason"]
        ),
        done=gettext_lazy("Published. The next look goes by it."),
    )
    return confirm(request, act, back=reverse("admin:referrals_riskpolicy"))
