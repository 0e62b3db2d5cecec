"""Share links, visits, the referral forest, rewards, risk and growth analytics.

The room stands on campaign (its services and selectors), packets and engine; nothing imports it.
A reward for a referral is a claim on a fixed packet, so that it obeys the same cap as every claim.
"""

from __future__ import annotations
