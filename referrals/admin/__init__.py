"""Growth in the admin.

channels.py      a campaign's channels and vehicles: switches, and what each brought
forest.py        who invited whom, a person in the forest as a picture, bans
growth.py        figures and charts of a campaign's growth
links.py         share links and complaints, to look at
rewards.py       what was granted and why; the events that apps reported
risk.py          clusters that seem to be one person, as pictures, and what is held for it
ticket_rules.py  for what people get tickets by themselves
"""

from __future__ import annotations

from referrals.admin import forest, growth, links, rewards, risk, ticket_rules

__all__ = ["forest", "growth", "links", "rewards", "risk", "ticket_rules"]
