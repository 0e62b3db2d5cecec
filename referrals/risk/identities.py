"""What ties a campaign's people, for the detectors: phones and networks by number.

Purses aren't among it: payouts have a keyed hash of them.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from django.db import connection

from referrals.models import Identity
from referrals.risk.detectors import SHARED_MAX
from referrals.risk.people import NONE, Ints

PEOPLE_AT_ONCE = 20_000  # of one statement: none may run long

_ROWS = """
SELECT participant, digest, last_seen FROM referrals_identity
 WHERE kind = %s AND participant = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Identities:
    """Numbers without meaning, one for each person: the same number, the same phone or network."""

    device: Ints
    network: Ints


def identities_of(people: Sequence[bytes]) -> Identities:
    """In the order of `people`; NONE where nothing is known."""
    return Identities(
        device=_numbers(people, Identity.Kind.DEVICE),
        network=_numbers(people, Identity.Kind.NETWORK),
    )


def _numbers(people: Sequence[bytes], kind: Identity.Kind) -> Ints:
    """Of somebody's phones (or networks) the one that most of these people have, hubs' last."""
    known = _known(people, kind)
    counts = Counter(digest for _, digest, _ in known)
    chosen: dict[bytes, tuple[bool, int, dt.date, bytes]] = {}
    for person, digest, day in known:
        worth = (counts[digest] <= SHARED_MAX, counts[digest], day, digest)
        chosen[person] = max(chosen.get(person, worth), worth)
    numbers: dict[bytes, int] = {}
    return np.array(
        [
            numbers.setdefault(chosen[person][-1], len(numbers)) if person in chosen else NONE
            for person in people
        ],
        np.int64,
    )


def _known(people: Sequence[bytes], kind: Identity.Kind) -> list[tuple[bytes, bytes, dt.date]]:
    found: list[tuple[bytes, bytes, dt.date]] = []
    for start in range(0, len(people), PEOPLE_AT_ONCE):
        with connection.cursor() as cursor:
            some = list(people[start : start + PEOPLE_AT_ONCE])
            cursor.execute(_ROWS, [kind.value, some])
            found += [(bytes(one), bytes(digest), day) for one, digest, day in cursor.fetchall()]
    return found
