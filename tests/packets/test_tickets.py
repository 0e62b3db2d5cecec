"""Tickets below the doors: their text, their serials under concurrency, their guards."""

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from functools import partial
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from engine.lib import crypto
from engine.lib.errors import ServiceError
from packets import invariants, tickets
from packets.claiming import flow, sync
from packets.claiming import ticket as texts
from packets.claiming.effects import ClaimRequest, Commit, Result
from packets.claiming.registry import registry
from packets.models import Claim, Packet, Ticket
from tests import world
from tests.conftest import wait_until
from tests.guards import without_guard
from tests.packets.test_commit import SQL

KEYS = {"k2": b"2" * 32, "k1": b"1" * 32}
PACKET = uuid.UUID(int=7)


class Dies(Exception):
    """The process dies here."""


def reserve_and_die(packet: Packet, name: str, ticket: str) -> None:
    class Dying(sync.SyncDriver):
        def _perform(self, effect: Any) -> Any:
            if isinstance(effect, Commit):
                raise Dies
            return super()._perform(effect)

    view = registry.view(packet.pk)
    assert view is not None
    caller = world.person(name, packet.client_apps[0])
    steps = flow.claim(view, caller, ClaimRequest(ticket=ticket), b"", sync.ticket_keys())
    with pytest.raises(Dies):
        Dying().run(steps)


def issue(packet: Packet, name: str = "alice", key: str = "", reason: str = "r") -> str:
    return tickets.ticket_issue(
        packet_id=packet.pk,
        client_app_id=world.APP,
        subject=name,
        key=key or uuid.uuid4().hex,
        reason=reason,
    )


# --- the text -------------------------------------------------------------------------------------


@given(st.binary(min_size=16, max_size=16), st.integers(1, 2**31 - 1), st.uuids())
def test_what_is_signed_is_read(who: bytes, serial: int, packet: uuid.UUID) -> None:
    ticket = texts.Ticket(who, serial)
    text = texts.sign(packet, ticket, KEYS)
    assert len(text) == 51 and text.startswith("k2.")
    assert texts.read(text, packet, KEYS) == ticket


@given(st.data())
def test_no_change_of_a_ticket_is_a_ticket(data: st.DataObject) -> None:
    text = texts.sign(PACKET, texts.Ticket(b"a" * 16, 3), KEYS)
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="utf-8"))
    changed = text[:place] + letter + text[place + 1 :]
    found = texts.read(changed, PACKET, KEYS)
    assert found is None or changed == text


def test_an_older_key_verifies_until_it_is_taken_away(settings: Any) -> None:
    old, new = "b2xk" * 10 + "b2w=", "bmV3" * 10 + "bmU="
    settings.ENCRYPTION_KEYS = [f"old:{old}"]
    text = texts.sign(PACKET, texts.Ticket(b"a" * 16, 1), crypto.derived_keys("ticket"))

    settings.ENCRYPTION_KEYS = [f"new:{new}", f"old:{old}"]
    both = crypto.derived_keys("ticket")
    assert texts.read(text, PACKET, both) is not None
    assert texts.sign(PACKET, texts.Ticket(b"a" * 16, 1), both).startswith("new.")

    settings.ENCRYPTION_KEYS = [f"new:{new}"]
    assert texts.read(text, PACKET, crypto.derived_keys("ticket")) is None
    assert both["old"] != crypto.derived_keys("another")["new"] != both["new"]


# --- issuing under concurrency --------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_forty_requests_for_ten_tickets_at_once() -> None:
    packet = world.open_packet(needs_ticket=True)

    found = world.together(
        [partial(issue, packet, key=f"m-{number % 10}") for number in range(40)], threads=12
    )

    assert not [one for one in found if isinstance(one, BaseException)]
    assert len(set(map(str, found))) == 10
    assert sorted(Ticket.objects.values_list("serial", flat=True)) == list(range(1, 11))


@pytest.mark.django_db(transaction=True)
def test_one_id_for_two_people_at_once_is_one_ticket() -> None:
    packet = world.open_packet(needs_ticket=True)

    found = world.together(
        [partial(issue, packet, name, key="m-1") for name in ("alice", "bob") * 6], threads=12
    )

    tickets_of = {one for one in found if isinstance(one, str)}
    refused = [one for one in found if isinstance(one, ServiceError)]
    assert len(tickets_of) == 1 and len(refused) == 6
    assert {refusal.code for refusal in refused} == {"reused"}
    assert Ticket.objects.count() == 1


def _second_beside_an_unfinished_first(packet: Packet, app_dsn: str) -> Any:
    """What comes of issuing a second ticket while the first one's transaction is still open."""
    outcome: list[Any] = []

    def second() -> None:
        try:
            outcome.append(issue(packet, key="second"))
        except BaseException as error:
            outcome.append(error)
        finally:
            connections.close_all()

    with psycopg.connect(app_dsn, autocommit=True) as link:

        def waits() -> bool:
            found = link.execute(
                "SELECT 1 FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ).fetchone()
            return found is not None

        with transaction.atomic():
            issue(packet, key="first")
            thread = threading.Thread(target=second)
            thread.start()
            wait_until(waits, what="the second's wait for the first")
        thread.join(20)
    return outcome[0]


@pytest.mark.django_db(transaction=True)
def test_two_tickets_of_one_person_get_two_serials(app_dsn: str) -> None:
    packet = world.open_packet(needs_ticket=True)

    assert isinstance(_second_beside_an_unfinished_first(packet, app_dsn), str)

    assert sorted(Ticket.objects.values_list("key", "serial")) == [("first", 1), ("second", 2)]


@pytest.mark.control
@pytest.mark.django_db(transaction=True)
def test_without_waiting_both_would_take_the_same_serial(
    app_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = world.open_packet(needs_ticket=True)
    monkeypatch.setattr(tickets, "_one_at_a_time", lambda *_: None)

    seen = _second_beside_an_unfinished_first(packet, app_dsn)

    assert isinstance(seen, IntegrityError), seen
    assert Ticket.objects.count() == 1  # a right that was asked for wasn't given


@pytest.mark.django_db(transaction=True)
def test_a_person_has_so_many_tickets_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_SERIAL", 2)
    packet = world.open_packet(needs_ticket=True)
    first = issue(packet, key="m-1")
    issue(packet)
    with pytest.raises(ServiceError) as refused:
        issue(packet)
    assert (refused.value.field, refused.value.code) == ("subject", "too_many")
    assert issue(packet, key="m-1") == first
    assert issue(packet, "bob")


# --- what the database says -----------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_ticket_stays_as_it_was_given(owner_dsn: str, app_dsn: str) -> None:
    issue(world.open_packet(needs_ticket=True))
    for dsn, refusal in (
        (owner_dsn, psycopg.errors.IntegrityConstraintViolation),
        (app_dsn, psycopg.errors.InsufficientPrivilege),
    ):
        for change in ("UPDATE packets_ticket SET serial = 9", "DELETE FROM packets_ticket"):
            with psycopg.connect(dsn) as link, pytest.raises(refusal):
                link.execute(change)


def _as_an_older_version(packet: Packet) -> Any:
    """A process that knows no tickets claims without a serial."""
    view = registry.view(packet.pk)
    assert view is not None
    older = dataclasses.replace(view, needs_ticket=False)
    steps = flow.claim(older, world.person("alice"), ClaimRequest(), b"")
    return sync.SyncDriver().run(steps)


@pytest.mark.django_db(transaction=True)
def test_an_older_process_gives_nothing_without_a_ticket() -> None:
    packet = world.open_packet(needs_ticket=True)
    with pytest.raises(AssertionError):
        _as_an_older_version(packet)
    assert Claim.objects.count() == 0
    assert world.claim(packet, "bob", ticket=issue(packet, "bob")).result is Result.WON


@pytest.mark.control
@pytest.mark.django_db(transaction=True)
def test_without_the_guard_it_would(owner_dsn: str) -> None:
    packet = world.open_packet(needs_ticket=True)
    with world.installed(owner_dsn, without_guard(SQL, "ticket"), SQL):
        assert _as_an_older_version(packet).result is Result.WON
    broken = {check.name for check in invariants.invariants_check().checks if check.value}
    assert broken == {"tickets_issued"}


@pytest.mark.django_db(transaction=True)
def test_claims_with_tickets_keep_the_books() -> None:
    packet = world.open_packet(needs_ticket=True)
    for number in range(4):
        world.claim(packet, "alice", ticket=issue(packet, key=f"m-{number}"))
    assert invariants.invariants_check().holds


@pytest.mark.django_db(transaction=True)
def test_all_claims_of_a_person_lie_in_their_home_lane() -> None:
    packet = world.open_packet(100_000, 400, lane_count=8, needs_ticket=True)
    for name in ("alice", "bob", "carol"):
        for _ in range(3):
            assert world.claim(packet, name, ticket=issue(packet, name)).result is Result.WON
        lanes = Claim.objects.filter(participant=world.person(name).participant)
        assert lanes.values("lane").distinct().count() == 1
    assert Claim.objects.count() == 9
    assert invariants.invariants_check().holds


def test_reading_a_ticket_costs_microseconds() -> None:
    """It stands on the hot path of every claim with a ticket: a bound that any machine meets."""
    text = texts.sign(PACKET, texts.Ticket(b"a" * 16, 3), KEYS)
    began = time.process_time()
    for _ in range(2_000):
        texts.read(text, PACKET, KEYS)
    each_us = (time.process_time() - began) / 2_000 * 1e6
    assert each_us < 200, each_us
