"""The stage of stories about packets: a funded account, an open gate, a packet, people."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from django.db import close_old_connections, connections

from engine.lib import clock, ids
from engine.lib.auth import Caller
from engine.lib.redis import stock as stock_client
from packets import ledger, services, stock
from packets.claiming import flow, sync
from packets.claiming.effects import ClaimRequest, Outcome, Slot
from packets.claiming.registry import registry
from packets.models import Account, Gate, Packet, Transfer

APP = 1  # the client app of everybody who isn't said to come from elsewhere
T = TypeVar("T")


def funder(fen: int, owner: str | None = None) -> Account:
    """A campaign's account with so much in it."""
    owner = owner or uuid.uuid4().hex
    account = ledger.account_get_or_create(kind=Account.Kind.CAMPAIGN, owner=owner, currency="CNY")
    outside = ledger.external_account("CNY")
    ledger.post([ledger.Entry(f"fund:{owner}", Transfer.Kind.FUND, outside.id, account.id, fen)])
    return account


def gate(key: str | None = None) -> Gate:
    made = services.gate_create(key=key or f"test:{uuid.uuid4().hex}")
    services.gate_set(gate_id=made.id, state="open", actor="test")
    return made


def draft_packet(total_fen: int = 10_000, count: int = 10, **rules: Any) -> Packet:
    now = clock.now()
    rules.setdefault("opens_at", now - dt.timedelta(minutes=1))
    rules.setdefault("closes_at", now + dt.timedelta(hours=1))
    rules.setdefault("client_apps", [APP])
    rules.setdefault("funder", funder(total_fen))
    rules.setdefault("gate", gate())
    return services.packet_create(total_fen=total_fen, count=count, **rules)


def open_packet(total_fen: int = 10_000, count: int = 10, **rules: Any) -> Packet:
    """A packet that people can claim now."""
    made = draft_packet(total_fen, count, **rules)
    return services.packet_open(packet_id=made.id, actor="test")


def person(name: str, app: int = APP, **claims: Any) -> Caller:
    return Caller(
        client_app_id=app,
        subject=name,
        participant=ids.participant_digest(app, name),
        **claims,
    )


def claim(packet: Packet, name: str | Caller, **request: Any) -> Outcome:
    """One claim through the synchronous driver, as the DRF door makes it."""
    who = name if isinstance(name, Caller) else person(name)
    answer = sync.claim(packet.id, who, ClaimRequest(**request))
    assert answer is not None, "no such packet"
    return answer[0]


def slot_of(packet: Packet, name: str) -> Slot:
    view = registry.view(packet.id)
    assert view is not None
    return flow.slot_of(view, person(name).participant)


def steps(packet: Packet, name: str) -> flow.Flow:
    """One claim, to be driven by whoever likes."""
    view = registry.view(packet.id)
    assert view is not None
    keys = (sync.password_key(), sync.ticket_keys())
    return flow.claim(view, person(name), ClaimRequest(), *keys)


def wipe_redis() -> None:
    stock_client().flushdb()


def forget_views() -> None:
    """What processes remember for a second, forgotten now."""
    registry.forget()


def redis_meta(packet: Packet, lane: int = 0) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = stock_client().hgetall(stock.meta_key(packet.id, lane))
    return found


def together(work: Iterable[Callable[[], T]], threads: int = 16) -> list[T | BaseException]:
    """Run all of `work` on so many threads that start at once; results or errors, in order."""
    jobs = list(enumerate(work))
    results: list[Any] = [None] * len(jobs)
    barrier = threading.Barrier(min(threads, len(jobs)))
    lock = threading.Lock()

    def run() -> None:
        barrier.wait()
        try:
            while True:
                with lock:
                    if not jobs:
                        return
                    number, job = jobs.pop(0)
                try:
                    results[number] = job()
                except BaseException as error:
                    results[number] = error
        finally:
            close_old_connections()
            connections.close_all()

    workers = [threading.Thread(target=run) for _ in range(barrier.parties)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert not worker.is_alive(), "a thread hangs"
    return results


@contextmanager
def installed(dsn: str, text: str, original: str) -> Iterator[None]:
    """Another version of an SQL file for a while; the original afterwards."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(text)  # type: ignore[call-overload]
    try:
        yield
    finally:
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute(original)  # type: ignore[call-overload]
