"""Who won with which device and from which address, for whoever wants to know: beside the claim.

A door appends what it saw to a list in memory, and a thread of the process hands it on, a little at
a time, after the claims. So the claim pays for an append; the crowd of a night is worked off in the
minutes after it. Nothing here may fail a claim or make it wait, and what is in memory when a
process dies is lost: it is evidence, never money.
"""

from __future__ import annotations

import collections
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from django.conf import settings
from django.db import connections

from engine.lib.auth import Caller

log = structlog.get_logger(__name__)

MAX_WAITING = 50_000  # of one process, some 400 bytes each; beyond, nothing more is noted
BATCH = 500  # handed on at once
# After each batch the thread rests: a door with more to note than this spends no more on it.
PAUSE_S = 0.5


class Sighting(NamedTuple):
    """`packet`: that was won; None where the listener needn't ask whether anybody wants to know.

    Peer and forwarded-for as the door got them: most are dropped before anybody reads them.
    """

    packet: uuid.UUID | None
    participant: bytes
    client_app_id: int
    device: str
    peer: str
    forwarded_for: str


Listener = Callable[[Sequence[Sighting]], object]

_lock = threading.Lock()
_waiting: collections.deque[Sighting] = collections.deque()
_listener: Listener | None = None
_thread: threading.Thread | None = None


def listen(listener: Listener) -> None:
    """Who is told; one for the process."""
    global _listener
    _listener = listener


def note(packet: uuid.UUID | None, caller: Caller, peer: str, forwarded_for: str) -> None:
    """Never raises, never waits. `peer`: an address without a port."""
    if _listener is None or len(_waiting) >= MAX_WAITING:
        return
    _waiting.append(
        Sighting(
            packet,
            caller.participant,
            caller.client_app_id,
            caller.device,
            peer,
            forwarded_for,
        )
    )
    if _thread is None:
        _start()


def hand_on() -> int:
    """Tell the listener of one batch; how many it was. What fails is dropped."""
    batch: list[Sighting] = []
    while _waiting and len(batch) < BATCH:
        batch.append(_waiting.popleft())
    if batch and _listener is not None:
        try:
            _listener(batch)
        except Exception as error:  # noqa: BLE001  (whatever it is, the thread goes on)
            log.warning("sightings_lost", count=len(batch), error=type(error).__name__)
            connections.close_all()
    return len(batch)


def _start() -> None:
    """The thread of this process; tests hand on what they noted by themselves."""
    global _thread
    if settings.TESTING:
        return
    with _lock:
        if _thread is None:
            _thread = threading.Thread(target=_run, name="sightings", daemon=True)
            _thread.start()


def _run() -> None:
    while True:
        time.sleep(PAUSE_S)
        if not hand_on():
            connections.close_all()  # the night is over: the connection is somebody else's


def _forked() -> None:
    """A child has none of its parent's threads, and what those held is nobody's to give back."""
    global _thread, _lock
    _thread, _lock = None, threading.Lock()
    _waiting.clear()


os.register_at_fork(after_in_child=_forked)
