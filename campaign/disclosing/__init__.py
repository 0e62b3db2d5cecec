"""What the law wants published: the rules, quantities and odds of each version, frozen with it.

    sections.py    what published words are made of
    wording.py     a version's document as sections of words, in the language that is active
    inviting.py    what inviters and friends get, and how far that goes
    odds.py        one packet in words: how it is cut, how much, how likely
    publishing.py  a version published: both languages, their hash, what changed since the last one
    views.py       `/d/{slug}`, for everybody

Nothing that happens later (other code, another translation) alters what was published: the page
shows the stored words.
"""

from __future__ import annotations

from django.conf import settings


def disclosure_address(slug: str) -> str:
    """Where everybody reads what was published of this campaign."""
    return f"{settings.BASE_URL.rstrip('/')}/d/{slug}"
