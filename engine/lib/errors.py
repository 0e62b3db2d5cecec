"""What a service says when it refuses: which field, a closed code, and why, in words for a person.

A refusal is raised before anything is written, or inside the transaction that it undoes: whoever
catches one may rely on nothing having changed. The API answers it as a 422 problem
(`engine/lib/problem.py`), the admin as a message, a command as its last line. The words are
translated when they are shown: `message` may be lazy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class ServiceError(Exception):
    """Bad input to a service. `field` is the service's own name of the argument that is wrong.

    `values` are put into the message's `%(name)s` places when it is read, in the reader's language.
    """

    def __init__(self, field: str, code: str, message: str | Promise, **values: Any) -> None:
        super().__init__(field, code)
        self.field = field
        self.code = code
        self._message = message
        self._values = values

    @property
    def message(self) -> str:
        text = str(self._message)
        return text % self._values if self._values else text

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class TransitionRefused(ServiceError):
    """The object isn't in a state from which this move exists (any more): somebody was faster.

    `state` is what it was found in, `wanted` the states from which the move may start; `labels`
    says them for people, where there are words for them.
    """

    def __init__(
        self,
        what: str,
        state: str,
        wanted: tuple[str, ...],
        labels: Mapping[str, str | Promise] | None = None,
    ) -> None:
        said = labels or {}
        super().__init__(
            "state",
            "transition_refused",
            _("%(what)s is %(state)s; this needs it to be %(wanted)s"),
            what=what,
            state=said.get(state, state),
            wanted=_Either([said.get(name, name) for name in wanted]),
        )
        self.state = state
        self.wanted = wanted


class _Either:
    """`a or b or c`, in the language of whoever reads it."""

    def __init__(self, words: list[str | Promise]) -> None:
        self._words = words

    def __str__(self) -> str:
        return str(_(" or ")).join(map(str, self._words))
