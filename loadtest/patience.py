"""How a person at the other end waits: for an answer, and before asking again."""

from __future__ import annotations

import random
from collections.abc import Mapping

REQUEST_TIMEOUT_S = 15.0  # longer than the server's own limits, so its answer is the one we hear
RETRY_FIRST_S = 0.1
RETRY_AT_MOST_S = 1.0  # the contract's "ask again in a second"


def wait_before_retry(headers: Mapping[str, str], attempt: int, dice: random.Random) -> float:
    """Retry-After where it was given, else a doubling wait; with jitter, so nobody marches."""
    asked = headers.get("Retry-After", "")
    base = float(asked) if asked.isdigit() else RETRY_FIRST_S * 2 ** min(attempt - 1, 8)
    return min(base, RETRY_AT_MOST_S) * dice.uniform(0.5, 1.0)
