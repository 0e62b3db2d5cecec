"""Who asks what, and in which order. Pure: the same seed makes the same crowd.

Two promises: everybody claims for the first time exactly once, and one person never has two
requests under way, so that what a person heard has an order (`ledger_check` relies on it).
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.answers import Kind

VIEW_SHARE = 0.3  # of the people look at the packet before they tap
REPEAT_SHARE = 0.2  # tap again later: impatience, a lost answer, a second phone
REPEAT_AFTER_AT_LEAST = 50  # other people come before a repeat, so that it isn't a double tap
AGAIN_AT_MOST = 20_000  # of the people ask once more at the end; bounds the time of a large run


@dataclass(frozen=True, slots=True)
class Errand:
    """One person's next request; `view`: they look at the packet first."""

    user: str
    kind: Kind
    view: bool = False


def people_of(run: str, count: int) -> list[str]:
    """Distinct user ids, told apart from those of every other run."""
    return [f"u-{run}-{number:06d}" for number in range(1, count + 1)]


class Plan:
    """Hands out errands; `finished` says when the last one has come back."""

    def __init__(
        self,
        people: Sequence[str],
        *,
        seed: int,
        first: bool = True,
        again: bool = True,
    ) -> None:
        self._random = random.Random(seed)
        self._coming = deque(people if first else ())
        self._again = deque(self._sample(people) if again else ())
        self._repeats: list[tuple[int, str]] = []  # heap of (begun at least, user)
        self._begun = 0
        self._spread = max(REPEAT_AFTER_AT_LEAST, len(people) // 4)
        self._under_way: set[str] = set()
        self._first_round_under_way = 0

    def _sample(self, people: Sequence[str]) -> list[str]:
        return self._random.sample(people, min(len(people), AGAIN_AT_MOST))

    @property
    def finished(self) -> bool:
        return not (self._coming or self._repeats or self._again or self._under_way)

    def next_errand(self) -> Errand | None:
        """The next errand, or None where nobody may go just now (ask again, or see `finished`)."""
        errand = self._repeat_that_is_due() or self._newcomer() or self._at_the_end()
        if errand is not None:
            self._under_way.add(errand.user)
            self._first_round_under_way += errand.kind is not Kind.AGAIN
        return errand

    def done(self, errand: Errand) -> None:
        self._under_way.discard(errand.user)
        self._first_round_under_way -= errand.kind is not Kind.AGAIN

    def _repeat_that_is_due(self) -> Errand | None:
        if not self._repeats:
            return None
        due, user = self._repeats[0]
        # When nobody new is coming any more, every repeat is due.
        if due > self._begun and self._coming:
            return None
        heapq.heappop(self._repeats)
        if user in self._under_way:
            heapq.heappush(self._repeats, (self._begun + REPEAT_AFTER_AT_LEAST, user))
            return None
        return Errand(user, Kind.REPEAT)

    def _newcomer(self) -> Errand | None:
        if not self._coming:
            return None
        user = self._coming.popleft()
        self._begun += 1
        if self._random.random() < REPEAT_SHARE:
            wait = self._random.randint(REPEAT_AFTER_AT_LEAST, self._spread)
            heapq.heappush(self._repeats, (self._begun + wait, user))
        return Errand(user, Kind.FIRST, view=self._random.random() < VIEW_SHARE)

    def _at_the_end(self) -> Errand | None:
        """The second round begins when the first is over, to the last answer."""
        if not self._again or self._repeats or self._first_round_under_way:
            return None
        return Errand(self._again.popleft(), Kind.AGAIN)
