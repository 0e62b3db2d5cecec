"""The product with one guard switched off, so that a run can show that it would notice.

SQL and Lua guards are the marked blocks of the files; those of the flow are known ways of getting
a claim wrong.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from engine.lib import clock, lua, sql
from packets.claiming import flow
from packets.claiming.effects import Claimed, Outcome, Reserved, Result
from tests import world as stage
from tests.guards import without_guard

COMMIT = sql.load("packets", "commit_claims.sql")
OF_SQL = ("fence", "gate", "home", "index", "reread", "total", "ticket")
OF_LUA = {"mark": "claim", "load": "load"}


def _repeat_is_a_win() -> Any:
    """A reservation made before is answered without its commit."""
    real = flow._commit

    def commit(slot: Any, reservation: Any, *asked: Any) -> Any:
        if reservation.code is Reserved.REPEAT:
            return Outcome(Result.WON, Claimed(slot.claim_id, reservation.portion, clock.now()))
        return (yield from real(slot, reservation, *asked))

    return mock.patch.object(flow, "_commit", commit)


def _refused_unasked() -> Any:
    """A refusal leaves before Postgres was asked for the caller's claim."""

    def refuse(slot: Any, refusal: Outcome) -> Any:
        return refusal
        yield

    return mock.patch.object(flow, "_refuse", refuse)


def _empty_is_sold_out() -> Any:
    """Redis's word that a lane is empty is taken for the packet's end."""
    real = flow._doubt

    def doubt(slot: Any, code: Reserved) -> Any:
        if code is Reserved.EMPTY:
            return Outcome(Result.SOLD_OUT, left_count=0)
        return (yield from real(slot, code))

    return mock.patch.object(flow, "_doubt", doubt)


OF_FLOW: dict[str, Callable[[], Any]] = {
    "repeat": _repeat_is_a_win,
    "refuse": _refused_unasked,
    "empty": _empty_is_sold_out,
}
NAMES = (*OF_SQL, *OF_LUA, *OF_FLOW)


def _careless_script(name: str) -> Any:
    load, file = lua.load, OF_LUA[name]
    script = load("packets", file)
    text = without_guard(script.text, name)
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    careless = dataclasses.replace(script, text=text, sha=sha)
    return mock.patch.object(
        lua, "load", lambda app, asked: careless if asked == file else load(app, asked)
    )


@contextmanager
def without(name: str, owner_dsn: str) -> Iterator[None]:
    """Everything but this guard; '' leaves all as it is."""
    if not name:
        yield
    elif name in OF_FLOW:
        with OF_FLOW[name]():
            yield
    elif name in OF_LUA:
        with _careless_script(name):
            yield
    else:
        with stage.installed(owner_dsn, without_guard(COMMIT, name), COMMIT):
            yield
