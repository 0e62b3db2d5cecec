"""Ticket rules as staff edit them: each row says as a sentence for what a ticket is given."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign
from engine.lib.adminkit import PlainModelAdmin, actor_of, dress, stamp
from engine.lib.errors import ServiceError
from packets.models import Packet
from referrals.events import rules
from referrals.models import TicketRule

CAMPAIGNS_OFFERED = 200  # the newest
TYPED = ("by", "mission", "a_day", "in_all", "is_active", "note")


class TicketRuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """The service judges; what it refuses is shown beside its field."""

    campaign = forms.ModelChoiceField(Campaign.objects.none(), label=_("campaign"))
    packet_id = forms.CharField(
        label=_("packet"),
        max_length=36,
        help_text=_("The id of a packet of this campaign that is claimed with tickets."),
    )

    class Meta:
        model = TicketRule
        fields = list(TYPED)
        help_texts = {
            "by": _(
                "A shared packet opens for friends: each who comes with a person's link gets a "
                "ticket, and the caps below count against whoever shares."
            ),
            "mission": _("Exactly as the app reports it; only for missions."),
            "is_active": _("A rule looks ahead: what happened before it was made gives nothing."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offered = Campaign.objects.order_by("-created_at")[:CAMPAIGNS_OFFERED]
        wanted = {campaign.pk for campaign in offered}
        if self.instance.pk is not None:
            wanted.add(self.instance.campaign_id)
            self.initial["campaign"] = self.instance.campaign_id
            self.initial["packet_id"] = self.instance.packet.public_id
        chosen = self.fields["campaign"]
        assert isinstance(chosen, forms.ModelChoiceField)
        chosen.queryset = Campaign.objects.filter(pk__in=wanted).order_by("-created_at")
        for field in self.fields.values():
            field.label = capfirst(field.label)
            dress(field)

    def clean_packet_id(self) -> Packet:
        try:
            return Packet.objects.get(pk=uuid.UUID(self.cleaned_data["packet_id"].strip()))
        except (ValueError, Packet.DoesNotExist):
            raise forms.ValidationError(_("There is no such packet.")) from None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if self.errors:
            return cleaned
        named = {name: cleaned[name] for name in TYPED}
        self.wanted = rules.Wanted(
            campaign=cleaned["campaign"], packet=cleaned["packet_id"], **named
        )
        try:
            rules.ticket_rule_check(self.wanted, self.instance.pk)
        except ServiceError as refusal:
            shown = {"packet": "packet_id"}
            self.add_error(shown.get(refusal.field, refusal.field) or None, refusal.message)
        return cleaned


@admin.register(TicketRule)
class TicketRuleAdmin(PlainModelAdmin):
    form = TicketRuleForm
    list_display = ["what", "campaign", "is_active", "note", "changed"]
    list_filter = ["by", "is_active"]
    list_select_related = ["campaign", "packet"]
    ordering = ["-id"]
    actions = None
    fieldsets = [
        (_("What for"), {"fields": ["campaign", "packet_id", "by", "mission"]}),
        (_("How many"), {"fields": ["a_day", "in_all"]}),
        (_("Further"), {"fields": ["is_active", "note"]}),
    ]

    def has_delete_permission(self, request: HttpRequest, obj: TicketRule | None = None) -> bool:
        return False  # switched off instead: why a ticket was given stays known

    def save_model(self, request: HttpRequest, obj: TicketRule, form: Any, change: bool) -> None:
        saved = rules.ticket_rule_set(
            wanted=form.wanted, actor=actor_of(request), rule_id=obj.pk if change else None
        )
        obj.pk = saved.pk

    @admin.display(description=_("rule"))
    def what(self, rule: TicketRule) -> str:
        return rules.sentence(rule)

    @admin.display(description=_("changed at"), ordering="changed_at")
    def changed(self, rule: TicketRule) -> Any:
        return stamp(rule.changed_at)
