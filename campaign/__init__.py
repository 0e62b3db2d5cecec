"""The control plane: campaigns, their budgets and their life cycle.

It decides when money may be claimed and how much there is; the packets themselves, and every claim,
belong to `packets`, which knows of no campaign.
"""

from __future__ import annotations
