"""A version published: both languages, their hash, and what changed since the last one.

Invariant kept here: what is approved and what a running campaign becomes is published in the same
transaction. The words are written once (`campaign/sql/disclosing.sql` refuses anything else), and
`audit_money` compares them with their hash.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import translation

from campaign.convergence import campaign_locked
from campaign.disclosing import wording
from campaign.disclosing.wording import Words
from campaign.models import Campaign, Disclosure
from campaign.versions import campaign_document, document_hash
from engine.models import ClientApp

LANGUAGES = {"zh": "zh-hans", "en": "en"}
State = Campaign.State
# What participants may rely on; those of an older release may have nothing published yet.
BINDING = (State.SCHEDULED, State.LIVE, State.PAUSED)
Cause = Disclosure.Cause


def disclosure_words(document: dict[str, Any]) -> dict[str, Words]:
    """The text of this version in each language."""
    apps = ClientApp.objects.filter(pk__in=document["client_apps"]).order_by("pk")
    names = list(apps.values_list("name", flat=True))
    found = {}
    for short, code in LANGUAGES.items():
        with translation.override(code):
            found[short] = wording.version_words(document, names)
    return found


def disclosure_publish(
    *, campaign: Campaign, cause: Disclosure.Cause = Cause.APPROVED
) -> Disclosure:
    """What the campaign is now, published; the newest row, where it is that version already.

    Called under the campaign's lock, by whoever approved or changed it, in their transaction.
    """
    document = campaign_document(Campaign.objects.get(pk=campaign.pk))
    version_hash = document_hash(document)
    last = Disclosure.objects.filter(campaign=campaign).order_by("-number").first()
    if last is not None and last.version_hash == version_hash:
        return last
    words = disclosure_words(document)
    changes = {short: _changes(last, short, text) for short, text in words.items()}
    body = json.dumps(
        {short: {**words[short], "changes": changes[short]} for short in words},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    return Disclosure.objects.create(
        campaign=campaign,
        number=last.number + 1 if last is not None else 1,
        cause=cause,
        version_hash=version_hash,
        body=body,
        sha256=hashlib.sha256(body.encode()).hexdigest(),
    )


def _changes(last: Disclosure | None, short: str, words: Words) -> list[dict[str, str]]:
    if last is None:
        return []
    with translation.override(LANGUAGES[short]):
        found = wording.differences(json.loads(last.body)[short], words)
    return [asdict(difference) for difference in found]


def disclosures_publish_missing(limit: int) -> int:
    """Those that were approved before there was this page; safe to repeat."""
    published = Disclosure.objects.filter(campaign=OuterRef("pk"))
    rows = Campaign.objects.filter(~Exists(published), state__in=BINDING).order_by("pk")
    done = 0
    for campaign_id in rows.values_list("pk", flat=True)[:limit]:
        with transaction.atomic():
            campaign = campaign_locked(campaign_id)
            if campaign.state in BINDING:
                disclosure_publish(campaign=campaign)
                done += 1
    return done
