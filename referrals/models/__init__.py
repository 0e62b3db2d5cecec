"""The rows of growth.

    Campaign ─< ShareLink ─< Visit      a person's link into one channel; one opening of it
                          ─< Complaint
             ─< Referral ─< Reward      an accepted invitee → inviter edge; what each side earned
    Ban ─< BanReward                    a person who may not spread it, and rewards held for it
    RiskPolicy ─< RiskCase              what follows from which score, version by version
    RiskCase ─< RiskMember ─< RiskReward  people who seem to be one, and rewards held for it
             ─< RiskAct                 what a reviewer does to all of them
    RiskLook                            when a campaign's people were last looked at
    RiskTrial                           a draft of a policy, tried before it is published
    Identity                            a phone or network of a person, as a keyed hash
    ServerEvent                         what an app reports of a person, once per id
    Referral ── Qualification           whether it has earned its rewards yet
    Campaign ─< TicketRule ─< TicketDue for what people get tickets; each occasion, decided once
    ClaimCursor                         how far a lane's claims have been looked at
    Campaign ─< GrowthSnapshot          what was counted of its growth; SnapshotDue: when again

Referral, Reward, ServerEvent and RiskPolicy are insert-only (triggers and the application's role
refuse the rest).
"""

from __future__ import annotations

from referrals.models.analytics import GrowthSnapshot, SnapshotDue
from referrals.models.bans import Ban, BanReward
from referrals.models.events import ServerEvent
from referrals.models.forest import CircleTry, Referral, Reward
from referrals.models.identities import Identity
from referrals.models.links import Complaint, ShareLink, Visit
from referrals.models.rewarding import ClaimCursor, Qualification, TicketDue, TicketRule
from referrals.models.risk import (
    Decision,
    RiskAct,
    RiskCase,
    RiskLook,
    RiskMember,
    RiskPolicy,
    RiskReward,
    RiskTrial,
)

__all__ = [
    "Ban",
    "BanReward",
    "CircleTry",
    "ClaimCursor",
    "Complaint",
    "Decision",
    "GrowthSnapshot",
    "Identity",
    "Qualification",
    "Referral",
    "Reward",
    "RiskAct",
    "RiskCase",
    "RiskLook",
    "RiskMember",
    "RiskPolicy",
    "RiskReward",
    "RiskTrial",
    "ServerEvent",
    "ShareLink",
    "SnapshotDue",
    "TicketDue",
    "TicketRule",
    "Visit",
]
