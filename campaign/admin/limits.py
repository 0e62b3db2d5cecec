"""The limits of the claim path, as staff edit them: each row says as a sentence what it does."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign
from engine.lib.adminkit import PlainModelAdmin, actor_of, dress, parse_yuan, stamp, yuan_text
from engine.lib.errors import ServiceError
from engine.lib.money import MAX_FEN
from packets import limit_rules
from packets.models import LimitRule, Packet

CAMPAIGNS_OFFERED = 200  # the newest; an older one is reached by its packets' ids
UNITS = ((1, _("seconds")), (60, _("minutes")), (3_600, _("hours")), (86_400, _("days")))


class LimitForm(forms.ModelForm):
    """Amounts are entered in yuan, windows in a unit; the service judges the rest."""

    campaign = forms.ModelChoiceField(
        Campaign.objects.none(),
        label=_("campaign"),
        required=False,
        empty_label=_("All campaigns"),
        help_text=_("Leave this and the packet empty for a limit over all campaigns together."),
    )
    packet_id = forms.CharField(
        label=_("packet"), required=False, max_length=36, help_text=_("The packet's id.")
    )
    most = forms.CharField(
        label=_("limit"), max_length=20, help_text=_("A number of claims, or an amount in yuan.")
    )
    window = forms.IntegerField(label=_("window"), min_value=1, initial=1)
    unit = forms.TypedChoiceField(label=_("unit"), choices=UNITS, coerce=int, initial=86_400)
    at_once = forms.CharField(
        label=_("burst"),
        max_length=20,
        required=False,
        help_text=_("Of a steady pace: how much may come at once."),
    )

    class Meta:
        model = LimitRule
        fields = ["subject", "measure", "method", "timezone", "when_away", "is_active", "note"]
        help_texts = {
            "subject": _(
                "A claim that names no device, chat group or share link meets no limit about one. "
                "A share link is counted as its code stands in the claim, an inviter by whose link "
                "it is. For rewards a day, count one person in the packet that pays them."
            ),
            "measure": _(
                "What a claim is worth is known only once it is won: a limit over money refuses "
                "once its sum is reached, and claims under way at that moment may pass it."
            ),
            "timezone": _("Where a window of a day begins at midnight."),
            "when_away": _(
                "Limits are counted in Redis. Without it claims go on through Postgres alone: "
                "may they, uncounted?"
            ),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offered = Campaign.objects.order_by("-created_at")[:CAMPAIGNS_OFFERED]
        rule = self.instance
        wanted = {campaign.pk for campaign in offered}
        if rule.pk is not None:
            wanted |= set(Campaign.objects.filter(gate=rule.gate_id).values_list("pk", flat=True))
            self._fill(rule)
        chosen = self.fields["campaign"]
        assert isinstance(chosen, forms.ModelChoiceField)
        chosen.queryset = Campaign.objects.filter(pk__in=wanted).order_by("-created_at")
        for field in self.fields.values():
            field.label = capfirst(field.label)
            dress(field)

    def _fill(self, rule: LimitRule) -> None:
        unit = max(size for size, _name in UNITS if rule.window_s % size == 0)
        amount = rule.measure == LimitRule.Measure.AMOUNT
        self.initial.update(
            {
                "campaign": Campaign.objects.filter(gate=rule.gate_id).first()
                if rule.gate_id
                else "",
                "packet_id": rule.packet.public_id if rule.packet else "",
                "most": yuan_text(rule.limit) if amount else str(rule.limit),
                "at_once": (yuan_text(rule.burst) if amount else str(rule.burst))
                if rule.burst
                else "",
                "window": rule.window_s // unit,
                "unit": unit,
            }
        )

    def clean_packet_id(self) -> Packet | None:
        text = self.cleaned_data["packet_id"].strip()
        if not text:
            return None
        try:
            return Packet.objects.get(pk=uuid.UUID(text))
        except (ValueError, Packet.DoesNotExist):
            raise forms.ValidationError(_("There is no such packet.")) from None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        most, at_once = self._number("most"), self._number("at_once")
        if self.errors:
            return cleaned
        campaign = cleaned["campaign"]
        self.wanted = limit_rules.Wanted(
            subject=cleaned["subject"],
            limit=most,
            window_s=cleaned["window"] * cleaned["unit"],
            gate=campaign.gate if campaign else None,
            packet=cleaned["packet_id"],
            measure=cleaned["measure"],
            method=cleaned["method"],
            burst=at_once,
            timezone=cleaned["timezone"],
            when_away=cleaned["when_away"],
            is_active=cleaned["is_active"],
            note=cleaned["note"],
        )
        try:
            limit_rules.limit_rule_check(self.wanted, self.instance.pk)
        except ServiceError as refusal:
            shown = {"limit": "most", "burst": "at_once", "window_s": "window"}
            self.add_error(shown.get(refusal.field, refusal.field) or None, refusal.message)
        return cleaned

    def _number(self, name: str) -> int:
        """In fen where money is counted."""
        text = self.cleaned_data.get(name, "").strip()
        if not text:
            return 0
        try:
            if self.cleaned_data.get("measure") == LimitRule.Measure.AMOUNT:
                return parse_yuan(text)
            number = int(text) if text.isascii() and text.isdigit() and len(text) < 17 else -1
            if not 0 <= number <= MAX_FEN:
                raise ValueError
        except ValueError:
            self.add_error(name, _("Enter a whole number, or an amount in yuan."))
            return 0
        return number


@admin.register(LimitRule)
class LimitRuleAdmin(PlainModelAdmin):
    form = LimitForm
    list_display = ["what", "is_active", "when_away", "note", "changed"]
    list_filter = ["subject", "is_active"]
    list_select_related = ["gate", "packet"]
    ordering = ["-id"]
    actions = None
    fieldsets = [
        (_("Whom and where"), {"fields": ["subject", "campaign", "packet_id"]}),
        (
            _("How much"),
            {"fields": ["measure", "method", "most", ("window", "unit"), "at_once", "timezone"]},
        ),
        (_("Further"), {"fields": ["when_away", "is_active", "note"]}),
    ]

    def has_delete_permission(self, request: HttpRequest, obj: LimitRule | None = None) -> bool:
        return False  # switched off instead: what stood before a claim stays known

    def save_model(self, request: HttpRequest, obj: LimitRule, form: Any, change: bool) -> None:
        saved = limit_rules.limit_rule_set(
            wanted=form.wanted, actor=actor_of(request), rule_id=obj.pk if change else None
        )
        obj.pk = saved.pk

    @admin.display(description=_("limit"))
    def what(self, rule: LimitRule) -> str:
        campaign = Campaign.objects.filter(gate=rule.gate_id).first() if rule.gate_id else None
        return limit_rules.sentence(rule, str(campaign or ""))

    @admin.display(description=_("changed at"), ordering="changed_at")
    def changed(self, rule: LimitRule) -> Any:
        return stamp(rule.changed_at)
