"""Accounts and transfers, to look at."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from engine.lib.adminkit import (
    MomentFilter,
    digests_of,
    money,
    stamp,
)
from packets.admin.rows import RowAdmin
from packets.models import (
    Account,
    Transfer,
)


@admin.register(Account)
class AccountAdmin(RowAdmin):
    list_display = ["kind", "owner", "currency", "balance"]
    list_filter = ["kind"]
    search_fields = ["owner"]
    search_help_text = _("Exact: the owner's id, or the app's user id")
    ordering = ["-id"]
    shown_instead = {"debits_fen": "debits_shown", "credits_fen": "credits_shown"}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Account], search_term: str
    ) -> tuple[QuerySet[Account], bool]:
        text = search_term.strip()
        if not text:
            return queryset, False
        owners = [text.replace("-", ""), text, *(digest.hex() for digest in digests_of(text))]
        # With the kinds named, the unique key (kind, owner, currency) finds the rows.
        return queryset.filter(kind__in=Account.Kind.values, owner__in=owners), False

    @admin.display(description=_("balance"))
    def balance(self, account: Account) -> SafeString:
        return money(account.balance_fen)

    @admin.display(description=_("debits"))
    def debits_shown(self, account: Account) -> SafeString:
        return money(account.debits_fen)

    @admin.display(description=_("credits"))
    def credits_shown(self, account: Account) -> SafeString:
        return money(account.credits_fen)


@admin.register(Transfer)
class TransferAdmin(RowAdmin):
    list_display = ["reference", "kind", "debit_account", "credit_account", "amount", "at"]
    list_filter = ["kind", ("created_at", MomentFilter)]
    search_fields = ["=reference"]
    search_help_text = _("Exact reference")
    ordering = ["-id"]
    list_select_related = ["debit_account", "credit_account"]

    @admin.display(description=_("created at"), ordering="id")
    def at(self, transfer: Transfer) -> SafeString:
        return stamp(transfer.created_at)
