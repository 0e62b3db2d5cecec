"""The rows of growth.

    Campaign ─< ShareLink ─< Visit      a person's link into one channel; one opening of it
                          ─< Complaint
             ─< Referral ─< Reward      an accepted invitee → inviter edge; what each side earned
    ServerEvent                         what an app reports of a person, once per id

Referral, Reward and ServerEvent are insert-only (triggers and the application's role refuse the
rest).
"""

from __future__ import annotations

from referrals.models.events import ServerEvent
from referrals.models.forest import Referral, Reward
from referrals.models.links import Complaint, ShareLink, Visit

__all__ = ["Complaint", "Referral", "Reward", "ServerEvent", "ShareLink", "Visit"]
