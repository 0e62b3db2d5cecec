"""Whose share link a claim's code is, for limits that count an inviter over all their links.

Packets know nothing of share links: whoever does says whose one is (`answer_with`). A code belongs
to one person for ever, so a process remembers the newest that were asked for; a code that is
nobody's isn't remembered, and meets no such limit. Nothing is asked where no limit counts inviters.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

MAX_CODES = 50_000  # remembered by one process, some 200 bytes each

Owner = Callable[[str], bytes | None]

_owner: Owner = lambda code: None  # noqa: E731 (no app has said better)
_known: OrderedDict[str, bytes] = OrderedDict()
_lock = threading.Lock()


def answer_with(owner: Owner) -> None:
    """`owner` reads whose link a code is, however it was typed; one for the process."""
    global _owner
    _owner = owner
    with _lock:
        _known.clear()


def known(code: str) -> bytes | None:
    """The inviter, if this process has asked before."""
    return _known.get(code)


def ask(code: str) -> bytes:
    """The inviter; empty where the code is nobody's."""
    found = _known.get(code)
    if found is None:
        found = _owner(code) or b""
    if found:
        with _lock:
            _known[code] = found
            _known.move_to_end(code)
            while len(_known) > MAX_CODES:
                _known.popitem(last=False)
    return found
