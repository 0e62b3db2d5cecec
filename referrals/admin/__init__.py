"""Growth in the admin.

channels.py    a campaign's channels and vehicles: switches, and what each brought
links.py       share links and complaints, to look at
"""

from __future__ import annotations

from referrals.admin import links

__all__ = ["links"]
