"""What a service says when it refuses: which field, a closed code, and why, in words for a person.

A refusal is raised before anything is written, or inside the transaction that it undoes: whoever
catches one may rely on nothing having changed. The API answers it as a 422 problem
(`engine/lib/problem.py`), the admin as a message, a command as its last line.
"""

from __future__ import annotations


class ServiceError(Exception):
    """Bad input to a service. `field` is the service's own name of the argument that is wrong."""

    def __init__(self, field: str, code: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.code = code
        self.message = message


class TransitionRefused(ServiceError):
    """The object isn't in a state from which this move exists (any more): somebody was faster.

    `state` is what it was found in, `wanted` the states from which the move may start.
    """

    def __init__(self, what: str, state: str, wanted: tuple[str, ...]) -> None:
        super().__init__(
            "state",
            "transition_refused",
            f"{what} is {state}; this needs it to be {' or '.join(wanted)}",
        )
        self.state = state
        self.wanted = wanted
