"""The risk rules as staff write them: sentences, a version for each change, and a dry run.

Only the version that counts is listed and changed; the older ones stand on its page.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import OperationalError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import (
    PlainModelAdmin,
    actor_of,
    dress,
    money,
    parse_yuan,
    require,
    stamp,
    yuan_text,
)
from engine.lib.errors import ServiceError
from engine.lib.money import MAX_FEN, yuan
from engine.staff.pages import page
from packets.holds import editing
from packets.holds.rules import PERSON_KINDS, rules_current
from packets.models import Participant, RiskRule

UNITS = (
    (1, gettext_lazy("seconds")),
    (60, gettext_lazy("minutes")),
    (3_600, gettext_lazy("hours")),
    (86_400, gettext_lazy("days")),
)
MONEY_KINDS = (RiskRule.Kind.AMOUNT_PER_PERSON, RiskRule.Kind.AMOUNT_PER_PAYEE)


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """Amounts are typed in yuan, windows in a unit; the service judges the rest."""

    usual = forms.CharField(
        label=gettext_lazy("still usual"),
        max_length=20,
        help_text=gettext_lazy(
            "A number, or an amount in yuan where money is counted. What is more than this waits "
            "for a person."
        ),
    )
    window = forms.IntegerField(label=gettext_lazy("window"), min_value=1, initial=1)
    unit = forms.TypedChoiceField(
        label=gettext_lazy("unit"), choices=UNITS, coerce=int, initial=3_600
    )

    class Meta:
        model = RiskRule
        fields = ["kind", "is_active", "note"]
        help_texts = {
            "kind": gettext_lazy(
                "The first two are asked when a claim is settled, and hold its money; the others "
                "when money is withdrawn, and let the payout wait."
            ),
            "note": gettext_lazy("Why: it stands in the audit log beside the change."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rule = self.instance
        if rule.window_s:
            unit = max(size for size, _name in UNITS if rule.window_s % size == 0)
            self.initial.update(
                usual=yuan_text(rule.most) if rule.counts_money else str(rule.most),
                window=rule.window_s // unit,
                unit=unit,
                note="",
            )
        for field in self.fields.values():
            field.label = capfirst(field.label)
            dress(field)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        most = self._usual(cleaned)
        if self.errors or most is None:
            return cleaned
        self.wanted = editing.Wanted(
            kind=cleaned["kind"],
            most=most,
            window_s=cleaned["window"] * cleaned["unit"],
            is_active=cleaned.get("is_active", True),
            note=cleaned.get("note", ""),
        )
        try:
            editing.rule_check(self.wanted, self.instance.rule if self.instance.pk else None)
        except ServiceError as refusal:
            name = {"window_s": "window", "most": "usual"}.get(refusal.field, refusal.field)
            self.add_error(name or None, refusal.message)
        return cleaned

    def _usual(self, cleaned: dict[str, Any]) -> int | None:
        """In fen where money is counted."""
        text = cleaned.get("usual", "").strip()
        if not text:
            return None
        try:
            if cleaned.get("kind") in MONEY_KINDS:
                return parse_yuan(text)
            number = int(text) if text.isascii() and text.isdigit() and len(text) < 17 else -1
            if not 0 <= number <= MAX_FEN:
                raise ValueError
        except (ValueError, forms.ValidationError):
            self.add_error("usual", _("Enter a whole number, or an amount in yuan."))
            return None
        return number


@admin.register(RiskRule)
class RiskRuleAdmin(PlainModelAdmin):
    form = RuleForm
    list_display = ["what", "is_active", "version", "changed_by", "changed", "tried"]
    list_filter = ["kind", "is_active"]
    ordering = ["-id"]
    actions = None
    readonly_fields = ["history"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[RiskRule]:
        return rules_current()

    def get_fieldsets(self, request: HttpRequest, obj: RiskRule | None = None) -> list[Any]:
        fields = ["kind", "usual", ("window", "unit"), "is_active", "note"]
        if not self.has_change_permission(request, obj):
            fields = ["what", "is_active", "note"]
        parts = [(None, {"fields": fields})]
        return [*parts, (_("Versions"), {"fields": ["history"]})] if obj else parts

    def get_readonly_fields(self, request: HttpRequest, obj: RiskRule | None = None) -> list[str]:
        return ["history", "what"]

    def has_delete_permission(self, request: HttpRequest, obj: RiskRule | None = None) -> bool:
        return False  # switched off instead: what held somebody's money stays known

    def save_model(self, request: HttpRequest, obj: RiskRule, form: Any, change: bool) -> None:
        after = RiskRule.objects.get(pk=obj.pk) if change else None
        saved = editing.rule_set(wanted=form.wanted, actor=actor_of(request), after=after)
        obj.pk = saved.pk

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            answer: HttpResponse = super().changeform_view(
                request, object_id, form_url, extra_context
            )
        except ServiceError as refusal:
            # Somebody else saved the same version in between.
            self.message_user(request, refusal.message, messages.ERROR)
            return HttpResponseRedirect(reverse("admin:packets_riskrule_changelist"))
        return answer

    def get_urls(self) -> list[URLPattern]:
        ours = [path("try/", self.admin_site.admin_view(try_rule), name="packets_riskrule_try")]
        return [*ours, *super().get_urls()]

    @admin.display(description=gettext_lazy("rule"))
    def what(self, rule: RiskRule) -> str:
        return editing.sentence(rule)

    @admin.display(description=gettext_lazy("valid from"))
    def changed(self, rule: RiskRule) -> Any:
        return stamp(rule.created_at)

    @admin.display(description=gettext_lazy("dry run"))
    def tried(self, rule: RiskRule) -> SafeString | str:
        if rule.kind not in PERSON_KINDS:
            return "–"
        address = f"{reverse('admin:packets_riskrule_try')}?rule={rule.pk}"
        return format_html('<a class="ls-link" href="{}">{}</a>', address, _("try it"))

    @admin.display(description=gettext_lazy("versions"))
    def history(self, rule: RiskRule) -> SafeString:
        rows = RiskRule.objects.filter(rule=rule.rule).order_by("-version")
        return format_html_join(
            "",
            "<div>{}. {} {} · {} · {}{}</div>",
            (
                (
                    row.version,
                    editing.sentence(row),
                    "" if row.is_active else f"({_('switched off')})",
                    stamp(row.created_at),
                    row.changed_by,
                    f" · {row.note}" if row.note else "",
                )
                for row in rows
            ),
        )


# --- a dry run ------------------------------------------------------------------------------------


class TryForm(RuleForm):
    """A rule that isn't saved: what would it have held?"""

    class Meta(RuleForm.Meta):
        fields = ["kind"]
        help_texts: dict[str, Any] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kind = self.fields["kind"]
        assert isinstance(kind, forms.ChoiceField)
        kind.choices = [choice for choice in RiskRule.Kind.choices if choice[0] in PERSON_KINDS]


def try_rule(request: HttpRequest) -> HttpResponse:
    """What a rule would have held among the latest claims. Reads only."""
    require(request, "packets.view_riskrule")
    number = request.GET.get("rule", "")
    known = number.isascii() and number.isdigit() and len(number) < 19
    rule = get_object_or_404(RiskRule, pk=int(number)) if known else None
    asked = "usual" in request.GET
    form = TryForm(request.GET if asked else None, instance=rule)
    wanted = None
    if asked and form.is_valid():
        wanted = form.wanted
    elif rule is not None and rule.kind in PERSON_KINDS and not asked:
        wanted = editing.Wanted(rule.kind, rule.most, rule.window_s)
    found, too_slow = None, False
    if wanted is not None:
        try:
            found = editing.dry_run(wanted)
        except OperationalError:
            too_slow = True
    return page(
        request,
        "packets/try_rule.html",
        _("Try a risk rule"),
        form=form,
        too_slow=too_slow,
        sentence=editing.sentence(wanted) if wanted else "",
        numbers=_numbers(found) if found else [],
        people=_people(found) if found else [],
        back=reverse("admin:packets_riskrule_changelist"),
    )


def _numbers(found: editing.DryRun) -> list[tuple[str, str]]:
    share = 100 * found.held_people / found.people if found.people else 0
    return [
        (_("Claims looked at"), f"{found.claims:,}"),
        (_("Held"), f"{found.held_claims:,}"),
        (_("Money held"), yuan(found.held_fen)),
        (_("People held"), f"{found.held_people:,} / {found.people:,} ({share:.2f} %)"),
    ]


def _people(found: editing.DryRun) -> list[dict[str, Any]]:
    names = {
        bytes(row.pk): str(row)
        for row in Participant.objects.filter(pk__in=[who for who, _claims, _fen in found.most])
    }
    return [
        {"who": names.get(who, who.hex()), "claims": f"{claims:,}", "amount": money(fen)}
        for who, claims, fen in found.most
    ]
