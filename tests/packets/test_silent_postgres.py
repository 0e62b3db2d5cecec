"""A Postgres that takes every byte and answers none: nobody waits for it without an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.db import connections

from engine.lib import ids
from packets.claiming import flow, journal
from packets.claiming.effects import Commit, Committed, Portion, Unavailable
from packets.claiming.registry import registry
from packets.models import Packet
from tests import world
from tests.relay import Relay

pytestmark = pytest.mark.django_db(transaction=True)

BOUND_S = 0.3  # of the tests; the real one is longer than any statement may take
FOR_EVER_S = 1.5  # five times the bound


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """Committing connections go through it; Django's own don't."""
    database = connections["default"].settings_dict
    real = dict(database)

    with Relay(f"postgres://{database['HOST']}:{database['PORT']}") as made:

        def through_it(*_: object) -> object:
            return {**real, "HOST": "127.0.0.1", "PORT": made.port}

        monkeypatch.setattr(journal, "_database", through_it)
        yield made


def commit_of(packet: Packet, name: str) -> Commit:
    view = registry.view(packet.id)
    assert view is not None
    slot = flow.slot_of(view, ids.participant_digest(world.APP, name))
    return Commit(slot, Portion(1, 0, 1_000, 0), world.APP, name)


class Asked:
    """A commit in a thread of its own, after the server has gone silent."""

    def __init__(self, way: Relay) -> None:
        packet = world.open_packet(10_000, 10, strategy="fixed")
        self.lane_id = packet.lanes.get().id
        self.journal = journal.Journal()
        self.commit = commit_of(packet, "alice")
        first = self.journal.truth(self.commit.slot)
        assert first.claimed is None and first.lane_open
        way.silent = True
        self.answers: list[Committed | Unavailable] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.answers += self.journal.commit(self.lane_id, [self.commit])


def test_a_silent_server_is_given_up(way: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "ANSWER_TIMEOUT_S", BOUND_S)
    monkeypatch.setattr(journal, "RETRY_FOR_S", 0.0)
    asked = Asked(way)
    asked.thread.join(10)
    assert not asked.thread.is_alive()
    (answer,) = asked.answers
    assert isinstance(answer, Unavailable)

    way.silent = False  # a new connection is made; the same claim is sent again
    (again,) = asked.journal.commit(asked.lane_id, [asked.commit])
    assert isinstance(again, Committed) and again.claimed is not None
    asked.journal.close()


@pytest.mark.control
def test_control_without_the_bound_it_waits(way: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "ANSWER_TIMEOUT_S", None)
    monkeypatch.setattr(journal, "RETRY_FOR_S", 0.0)
    asked = Asked(way)
    asked.thread.join(FOR_EVER_S)
    assert asked.thread.is_alive()
    way.close()
    asked.thread.join(10)
    assert not asked.thread.is_alive()


def test_the_bound_is_longer_than_any_statement() -> None:
    assert journal.ANSWER_TIMEOUT_S is not None
    assert journal.ANSWER_TIMEOUT_S * 1000 > journal.STATEMENT_TIMEOUT_MS
