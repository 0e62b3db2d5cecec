"""Three-way checks in the admin: what Redis, ledger and provider said, and where they disagree."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import number_of, require, stamp, tag
from engine.lib.money import yuan
from engine.staff.pages import page
from packets.admin.rows import RowAdmin
from packets.models import StockCheck

FOUND_WORDS = {
    "stock_epoch": gettext_lazy("Redis serves an epoch that was never opened"),
    "stock_above": gettext_lazy("Redis may give more portions than are left"),
    "escrow": gettext_lazy("the escrow isn't what lanes and waiting claims add up to"),
    "clearing": gettext_lazy("clearing isn't what is under way"),
    "statement_sum": gettext_lazy("the statements' sum isn't that of our paid payouts"),
    "provider_balance": gettext_lazy("more left the provider's account than the ledger explains"),
}


@admin.register(StockCheck)
class StockCheckAdmin(RowAdmin):
    list_display = ["at_shown", "packets", "lanes", "found_shown", "took_ms"]
    ordering = ["-at", "-id"]

    @admin.display(description=gettext_lazy("time"), ordering="at")
    def at_shown(self, check: StockCheck) -> SafeString:
        return stamp(check.at)

    @admin.display(description=gettext_lazy("differences"), ordering="found")
    def found_shown(self, check: StockCheck) -> SafeString:
        return tag("failed" if check.found else "done", check.found)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        require(request, "packets.view_stockcheck")
        check = get_object_or_404(StockCheck, pk=number_of(object_id))
        report = check.report
        accounts = [
            {
                "name": name,
                "balance_error": facts["balance_error"],
                **{
                    key: yuan(facts[f"{key}_fen"]) if facts[f"{key}_fen"] is not None else "–"
                    for key in ("clearing", "paid", "statements", "balance", "came_in")
                },
            }
            for name, facts in report["accounts"].items()
        ]
        return page(
            request,
            "packets/stock_check.html",
            _("Three-way check"),
            check=check,
            at=stamp(check.at),
            report=report,
            accounts=accounts,
            found=[
                {**one, "words": FOUND_WORDS.get(one["what"], one["what"])}
                for one in report["found"]
            ],
            back=reverse("admin:packets_stockcheck_changelist"),
        )
