"""Where somebody looks from, as far as it may be written down: keyed hashes, never an address.

    network   of the address cut to its /24 or /56; complaints and clusters go by it
    visitor   of the whole address with the browser's own name; the same person again goes by it

A hash carries the id of its key, so that keys can change; what was hashed under an older key is a
stranger then.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from engine.lib import crypto
from engine.lib.middleware import network_of

HASH_HEX_CHARS = 32


@dataclass(frozen=True, slots=True)
class Place:
    network: str
    visitor: str


def place_of(address: str, agent: str) -> Place:
    key_id, key = next(iter(crypto.derived_keys("place").items()))

    def hashed(kind: str, text: str) -> str:
        named = f"{kind}\0{text}".encode("utf-8", "surrogateescape")
        return f"{key_id}:{hmac.digest(key, named, 'sha256').hex()[:HASH_HEX_CHARS]}"

    return Place(
        network=hashed("network", network_of(address)),
        visitor=hashed("visitor", f"{address}\0{agent}"),
    )
