"""Phones and networks of people are noted as keyed hashes: what ties accounts of one person.

Noted are people of campaigns that are shared, when they win, join or share; never the name of a
phone, never an address. A hash holds for one app only: two apps' people can't be told to be one,
and what an app calls a phone means something only to it. Over campaigns it is the same, since farms
don't end with a campaign.

A hash is written under the current key and under the one before it (each says which): so people
seen before and after a change of keys can still be compared, until the next change.

Every door imports this: nothing here may load a library of arrays.
"""

from __future__ import annotations

import hmac
import itertools
import threading
import time
import uuid
from collections.abc import Iterable, Sequence

from django.conf import settings
from django.db import connection, transaction

from engine.lib import crypto
from engine.lib.middleware import client_ip_from, network_of
from packets.models import Packet
from packets.sightings import Sighting
from referrals.models import Identity

DIGEST_BYTES = 16
KEYS_IN_USE = 2  # the current one, and the one before it
# Somebody whom this process has noted so isn't noted again; cleared when full, and each day.
MAX_KNOWN = 200_000
SHARED_KNOWN_S = 30.0  # for so long a process remembers whether a packet is of a shared campaign
MAX_PACKETS = 10_000

_KEEP = """
INSERT INTO referrals_identity (participant, kind, digest, key_id, first_seen, last_seen)
SELECT DISTINCT ON (seen.participant, seen.kind, seen.digest)
       seen.participant, seen.kind, seen.digest, seen.key_id, today.day, today.day
  FROM unnest(%s::bytea[], %s::text[], %s::bytea[], %s::text[])
       AS seen (participant, kind, digest, key_id)
 CROSS JOIN (SELECT (now() AT TIME ZONE 'UTC')::date AS day) AS today
 ORDER BY seen.participant, seen.kind, seen.digest  -- two batches never wait in a circle
    ON CONFLICT (participant, kind, digest) DO UPDATE SET last_seen = EXCLUDED.last_seen
 WHERE referrals_identity.last_seen < EXCLUDED.last_seen
"""


def sightings_keep(sightings: Sequence[Sighting]) -> int:
    """Write down what isn't known yet; how many rows that were. The door's thread calls this."""
    _memory.begin()
    shared = _shared_packets({one.packet for one in sightings if one.packet is not None})
    rows: list[tuple[bytes, str, bytes, str]] = []
    for one in sightings:
        if (one.packet is None or one.packet in shared) and _memory.is_new(one):
            rows += rows_of(one)
    if rows:
        try:
            _write(rows)
        except BaseException:
            forget()  # they aren't known after all
            raise
    return len(rows)


def _write(rows: Sequence[tuple[bytes, str, bytes, str]]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        # Nobody waits for the disk because of evidence.
        cursor.execute("SET LOCAL synchronous_commit = off")
        cursor.execute(_KEEP, [list(column) for column in zip(*rows, strict=True)])


def rows_of(seen: Sighting) -> list[tuple[bytes, str, bytes, str]]:
    """(participant, kind, digest, key id) of what was seen, under each key in use."""
    network = network_of(client_ip_from(seen.peer, seen.forwarded_for, settings.TRUSTED_PROXIES))
    told = [(Identity.Kind.DEVICE, seen.device), (Identity.Kind.NETWORK, network)]
    return [
        (seen.participant, kind.value, _digest(key, seen.client_app_id, kind.value, text), key_id)
        for key_id, key in _keys_in_use()
        for kind, text in told
        if text
    ]


def _keys_in_use() -> Iterable[tuple[str, bytes]]:
    return itertools.islice(crypto.derived_keys("identity").items(), KEYS_IN_USE)


def _digest(key: bytes, app: int, kind: str, text: str) -> bytes:
    named = f"{kind}\0{app}\0{text}".encode()
    return hmac.digest(key, named, "sha256")[:DIGEST_BYTES]


class _Memory:
    """Whom this process has noted lately, and which packets are of shared campaigns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[int] = set()
        self._day = 0
        self.packets: dict[uuid.UUID, tuple[float, bool]] = {}

    def begin(self) -> None:
        """The days here only bound the memory; what is written is of Postgres's day."""
        day = int(time.time() // 86_400)
        with self._lock:
            if day != self._day or len(self._known) >= MAX_KNOWN:
                self._known.clear()
                self._day = day
            if len(self.packets) >= MAX_PACKETS:
                self.packets.clear()

    def is_new(self, seen: Sighting) -> bool:
        mark = hash(seen[1:])  # without the packet
        with self._lock:
            if mark in self._known:
                return False
            self._known.add(mark)
        return True

    def forget(self) -> None:
        with self._lock:
            self._known.clear()
            self.packets.clear()


_memory = _Memory()
forget = _memory.forget


def _shared_packets(packets: set[uuid.UUID]) -> set[uuid.UUID]:
    """Those of campaigns that are shared."""
    moment = time.monotonic()
    unknown = [one for one in packets if _memory.packets.get(one, (0.0, False))[0] <= moment]
    if unknown:
        shared = Packet.objects.filter(id__in=unknown, campaigns__growth__is_on=True)
        found = set(shared.values_list("id", flat=True))
        for one in unknown:
            _memory.packets[one] = (moment + SHARED_KNOWN_S, one in found)
    return {one for one in packets if _memory.packets.get(one, (0.0, False))[1]}
