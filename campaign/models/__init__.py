"""Campaigns: a budget, a time window, and the packets it pays for.

    Campaign ── Account (kind campaign)   the budget, in the ledger
             ── Gate `campaign:<id>`      stands before every packet of the campaign
             ─< CampaignPacket ── Packet  which packets belong to it, in the order they are shown
             ─< Rain ─< CampaignPacket    those that are the rounds of a red-packet rain
             ─< CampaignApproval          a second person's word on one exact version
             ─< Disclosure                what participants were told, word for word
             ── CampaignGrowth            how it may spread; ─< CampaignChannel where
             ─< TopUp                     more money or packets for a running one, asked and decided
    Packet   ─< TargetUpload ─< TargetUploadPart, TargetUploadError   people, read in parts
    CampaignTemplate                      what a new campaign may be made from
    Notice                                what a member of staff has to know, shown in the admin

A version of a campaign is the hash of everything that matters (`versions.py`). At most one approval
of a campaign is valid, and none outlives an edit.

The budget is a ledger account that can't go below zero, so no counter of ours guards it: a packet
that the account can't pay doesn't open. States move only by conditional UPDATEs in `services.py`.
"""

from __future__ import annotations

from campaign.models.campaign import (
    CONTACT_MAX_CHARS,
    DEFAULT_TIMEZONE,
    HASH_HEX_CHARS,
    ODDS_MAX_CHARS,
    ORGANISER_MAX_CHARS,
    RULES_MAX_CHARS,
    SLUG_MAX_CHARS,
    TEXTS,
    Campaign,
    CampaignPacket,
    Rain,
    slug_is_valid,
    validate_timezone,
)
from campaign.models.desk import BurnSample, CampaignTemplate, Notice
from campaign.models.disclosing import Disclosure
from campaign.models.growth import (
    MAX_REWARD_DEPTH,
    WAYS,
    CampaignChannel,
    CampaignGrowth,
    Channel,
    Vehicle,
)
from campaign.models.review import CampaignApproval, TopUp
from campaign.models.targets import TargetUpload, TargetUploadError, TargetUploadPart

__all__ = [
    "CONTACT_MAX_CHARS",
    "DEFAULT_TIMEZONE",
    "HASH_HEX_CHARS",
    "MAX_REWARD_DEPTH",
    "ODDS_MAX_CHARS",
    "ORGANISER_MAX_CHARS",
    "RULES_MAX_CHARS",
    "SLUG_MAX_CHARS",
    "TEXTS",
    "WAYS",
    "BurnSample",
    "Campaign",
    "CampaignApproval",
    "CampaignChannel",
    "CampaignGrowth",
    "CampaignPacket",
    "CampaignTemplate",
    "Channel",
    "Disclosure",
    "Notice",
    "Rain",
    "TargetUpload",
    "TargetUploadError",
    "TargetUploadPart",
    "TopUp",
    "Vehicle",
    "slug_is_valid",
    "validate_timezone",
]
