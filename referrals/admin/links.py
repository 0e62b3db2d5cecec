"""Share links and complaints, to look at. People stand there by their digests."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from engine.lib.adminkit import exact_filter, stamp
from packets.admin.rows import RowAdmin
from referrals.admin import channels
from referrals.models import Complaint, ShareLink


@admin.register(ShareLink)
class ShareLinkAdmin(RowAdmin):
    list_display = ["code", "campaign", "channel", "person", "created", "revoked"]
    list_filter = ["channel", exact_filter("code", _("code"))]
    list_select_related = ["campaign"]
    ordering = ["-id"]

    def get_urls(self) -> list[URLPattern]:
        own = self.admin_site.admin_view
        return [
            path("channels/", own(channels.overview), name="referrals_channels"),
            path(
                "channels/<uuid:campaign_id>/",
                own(channels.channels),
                name="referrals_channels_of",
            ),
            *super().get_urls(),
        ]

    @admin.display(description=_("created at"), ordering="created_at")
    def created(self, link: ShareLink) -> SafeString:
        return stamp(link.created_at)

    @admin.display(description=_("revoked at"))
    def revoked(self, link: ShareLink) -> SafeString:
        return stamp(link.revoked_at)


@admin.register(Complaint)
class ComplaintAdmin(RowAdmin):
    list_display = ["made", "campaign", "code", "reason_shown"]
    list_select_related = ["campaign", "link"]
    ordering = ["-id"]

    @admin.display(description=_("at"), ordering="at")
    def made(self, complaint: Complaint) -> SafeString:
        return stamp(complaint.at)

    @admin.display(description=_("code"))
    def code(self, complaint: Complaint) -> str:
        return complaint.link.code

    @admin.display(description=_("reason"))
    def reason_shown(self, complaint: Complaint) -> Any:
        return REASONS.get(complaint.reason, "–")


REASONS = {
    "unwanted": _("I did not want it"),
    "too_often": _("I get it too often"),
    "misleading": _("It promises what isn't true"),
}
