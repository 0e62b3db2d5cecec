"""What the data plane's screens share: to look at, never to write."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from engine.lib.adminkit import (
    ReadOnlyModelAdmin,
    money,
    uuid_of,
)


class RowAdmin(ReadOnlyModelAdmin):
    """What the data plane's screens share: people by their digest, amounts in yuan."""

    shown_instead = {"participant": "person", "digest": "person", "amount_fen": "amount"}

    @admin.display(description=_("participant"))
    def person(self, row: Any) -> str:
        return bytes(row.participant if hasattr(row, "participant") else row.digest).hex()

    @admin.display(description=_("amount"))
    def amount(self, row: Any) -> SafeString:
        return money(row.amount_fen)


def by_uuid(field: str, queryset: QuerySet[Any], text: str) -> QuerySet[Any]:
    found = uuid_of(text)
    return queryset.filter(**{field: found}) if found else queryset.none()
