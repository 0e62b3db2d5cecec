"""What people will be told, before it is published: the renderer's own words, in both languages.

And every version that was published, with its hash. Nothing is done here.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from campaign.admin.shell import address_of, name_of
from campaign.disclosing import disclosure_address
from campaign.disclosing.publishing import disclosure_words
from campaign.models import Campaign, Disclosure
from campaign.versions import campaign_document, document_hash
from engine.lib.adminkit import moment
from engine.staff.pages import page, user_of

TONGUES = {"zh": "zh-Hans", "en": "en"}


def disclosure(request: HttpRequest, object_id: str) -> HttpResponse:
    """The version as it stands, and whether it is the one that is published."""
    if not user_of(request).has_perm("campaign.view_campaign"):
        raise PermissionDenied
    campaign = get_object_or_404(Campaign, pk=object_id)
    document = campaign_document(campaign)
    versions = list(Disclosure.objects.filter(campaign=campaign).order_by("-number"))
    return page(
        request,
        "campaign/disclosure_preview.html",
        _("Published rules: %(name)s") % {"name": name_of(campaign)},
        campaign=campaign,
        is_published=bool(versions) and versions[0].version_hash == document_hash(document),
        texts=[
            {"lang": TONGUES[short], "words": words}
            for short, words in disclosure_words(document).items()
        ],
        versions=[_version(row, campaign) for row in versions],
        public=disclosure_address(campaign.slug),
        back=address_of(campaign),
    )


def _version(row: Disclosure, campaign: Campaign) -> dict[str, Any]:
    return {
        "number": row.number,
        "cause": row.get_cause_display(),
        "at": moment(row.at, campaign.timezone, seconds=True),
        "sha256": row.sha256,
        "address": f"{disclosure_address(campaign.slug)}/{row.number}",
    }
