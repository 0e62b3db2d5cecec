"""The screens of the control plane, in the order of a marketer's work.

    shell.py      what surrounds every page: navigation, the kill switch's banner, notices
    board.py      the live board's numbers, overall and of one campaign
    forms.py      what people type; yuan and local times, never fen and UTC
    builder.py    one page that makes a campaign with its packets, and its live preview
    campaigns.py  the list and the page of one campaign
    acts.py       every step of the life cycle: what it costs, asked once more, then done
    review.py     the second person's page: what changed, and yes or no
    channel_rules.py  what the platforms want, read and acknowledged
    disclosing.py what people will be told, and what was published
    running.py    more for a running campaign: budget, packets, a later end
    growth.py     how a campaign spreads, and its reward packets in one step (growth_form.py)
    rains.py      red-packet rain: rounds with a timetable, and a round moved
    lists.py      lists of people: upload, progress, refused rows
    exports.py    claims as CSV, with progress
    money_exports.py  transfers, payouts and differences as CSV, for finance
    limits.py     how often who may claim
    people.py     Django's users and groups in the theme

A screen reads with selectors, writes through services only, and shows a refusal beside its field.
"""

from __future__ import annotations

from django.contrib import admin

from campaign.admin import campaigns, limits, people

admin.site.index_template = "campaign/board.html"
admin.site.index_title = campaigns.INDEX_TITLE

__all__ = ["campaigns", "limits", "people"]
