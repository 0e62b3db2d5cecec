"""Traces are forgotten by age, and a person can go: the books stay, and nobody can tell whose."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import Error, connection, transaction
from psycopg import sql

from campaign.models import CampaignGrowth, TargetUpload, TargetUploadError, TargetUploadPart
from engine import forced
from engine.celery import SWEEPS
from engine.lib import clock, crypto
from engine.lib.auth import Caller
from engine.lib.errors import ServiceError
from engine.lib.outbox import EventKind, outbox_emit
from engine.models import AuditEvent, ClientApp, IdempotencyRecord, WebhookAttempt
from packets import services, settlement
from packets.claiming.effects import Result
from packets.holds.appeals import hold_appeal
from packets.holds.holding import hold_wallet
from packets.holds.resolving import hold_release
from packets.holds.rules import RiskReason
from packets.models import Claim, HoldAppeal, Packet, Participant, Payout, Ticket
from packets.payouts import sending
from packets.payouts.withdrawals import payout_create
from packets.people_packets import Wanted, people_packet_create
from packets.providers.base import Kind, Order
from packets.providers.base import Result as Said
from packets.sightings import Sighting
from referrals.events.receiving import Event, events_receive
from referrals.forest.bans import ban_lift, person_ban
from referrals.forest.binding import Touch, referral_bind
from referrals.linking.places import place_of
from referrals.linking.visits import visit_record
from referrals.models import (
    CircleTry,
    Complaint,
    Identity,
    Qualification,
    Referral,
    Reward,
    RiskCase,
    RiskMember,
    ShareLink,
    Visit,
)
from referrals.privacy import forgetting
from referrals.privacy.erasing import person_erase, unfinished
from referrals.risk import noting
from referrals.tasks import identities_forget
from tests import wallets, world
from tests.conftest import wait_until
from tests.packets.payouts.stage import Rail, due_now, use
from tests.referrals.rewarding import qualified, rewarding
from tests.referrals.stage import app_of, bind, link_of, sharing
from tests.webhooks.stage import make_endpoint

pytestmark = pytest.mark.django_db(transaction=True)

USER = "u-4711-anneliese"
DEVICE = "phone-of-anneliese"
PURSE = "anneliese@purse.example"
NAME = "Anneliese Probe"
WORDS = "it was my sister Brunhilde"
KINDS = (EventKind.CLAIM_SETTLED, EventKind.PAYOUT_PAID, EventKind.CHALLENGE_ASKED)
NEEDLES = (USER, DEVICE, PURSE, NAME, "Brunhilde", "203.0.113.77")


class TellingRail(Rail):
    """A provider whose requests and answers name the payee, as real ones do."""

    def request(self, order: Order) -> bytes:
        return f"{order.out_number} {order.payee_account} {order.payee_name}".encode()


@pytest.fixture(autouse=True)
def nobody_is_known() -> Iterator[None]:
    noting.forget()
    yield
    noting.forget()


@pytest.fixture
def rail(monkeypatch: pytest.MonkeyPatch) -> Rail:
    wallets.bank()
    return use(monkeypatch, TellingRail())


@pytest.fixture
def growth(rail: Rail) -> CampaignGrowth:
    growth = sharing()
    app = ClientApp.objects.get(pk=app_of(growth.campaign))
    make_endpoint(app, kinds=KINDS)
    return growth


def app(growth: CampaignGrowth) -> ClientApp:
    return ClientApp.objects.get(pk=app_of(growth.campaign))


def who(growth: CampaignGrowth) -> Caller:
    return world.person(USER, app(growth).pk, device=DEVICE)


def available_fen(growth: CampaignGrowth) -> int:
    return wallets.available_fen(app(growth), USER)


def settle() -> None:
    for packet in Packet.objects.all():
        for lane in packet.lanes.all():
            while settlement.settle_lane(lane.pk).left:
                pass


def win(growth: CampaignGrowth) -> None:
    outcome = world.claim(Packet.objects.get(campaigns=growth.campaign), who(growth))
    assert outcome.result is Result.WON
    settle()


def withdraw(growth: CampaignGrowth) -> Payout:
    return payout_create(
        participant=who(growth).participant,
        client_app_id=app(growth).pk,
        amount_fen=available_fen(growth),
        provider="bank",
        payee_account=PURSE,
        payee_name=NAME,
        key=f"w{Payout.objects.count()}",
    )


def pay(payout: Payout, rail: Rail) -> None:
    rail.says(Said(Kind.PAID, code="SUCCESS", provider_ref="r1", detail=f"paid to {NAME}"))
    due_now(payout)
    assert sending.payout_step()


def erase(growth: CampaignGrowth, **more: Any) -> dict[str, int]:
    return person_erase(client_app_id=app(growth).pk, subject=USER, actor="test", **more)


def everything_happens(growth: CampaignGrowth, rail: Rail) -> None:
    """All that anybody's name, phone or purse can get into."""
    person, app_id = who(growth), app(growth).pk
    visit = visit_record(
        link=link_of(growth, "inviter"),
        vehicle="link",
        place=place_of("203.0.113.77", "a browser"),
        agent="wechat",
        most_per_hour=10,
    )
    assert visit is not None
    bind(growth, USER, "inviter")
    win(growth)
    sight = Sighting(None, person.participant, app_id, DEVICE, "203.0.113.77", "")
    noting.sightings_keep([sight])
    link_of(growth, USER)
    events_receive(
        client_app_id=app_id,
        events=[Event(key=f"active:{USER}:1", user=USER, kind="active", at=clock.now())],
    )
    edge = Referral.objects.get(invitee=person.participant)
    because = f"event:{app_id}:active:{USER}:1"
    Reward.objects.create(
        referral=edge,
        side="inviter",
        participant=edge.inviter,
        state="capped",
        qualified_by=because,
    )
    Qualification.objects.filter(referral=edge).update(qualified_by=because)
    hold = hold_wallet(
        participant=person.participant,
        amount_fen=1,
        funder_id=Packet.objects.get(campaigns=growth.campaign).funder_id,
        reasons=[RiskReason.FARM],
        actor="staff:eva",
        reason="a look",
    )
    assert hold is not None
    hold_appeal(hold_id=hold.pk, participant=person.participant, text=WORDS, actor="them")
    hold_release(hold_id=hold.pk, actor="staff:eva", reason="fine")
    sent = people_packet_create(
        sender=person, wanted=Wanted("fixed", 2, 2, f"from {NAME}"), key="p1"
    )
    services.packet_close(packet_id=sent.pk, actor="test")
    ticket_key = {"client_app_id": app_id, "key": f"mission-{USER}", "reason": f"for {NAME}"}
    Ticket.objects.create(packet=sent, participant=person.participant, serial=1, **ticket_key)
    pay(withdraw(growth), rail)
    IdempotencyRecord.objects.create(
        principal=person.principal,
        key="w0",
        route="/me/withdrawals",
        fingerprint="",
        status=201,
        response=PURSE.encode(),
        run=visit.click_id,
        lease_until=clock.now(),
        created_at=clock.now(),
    )
    told = app(growth).events.filter(payload__user=USER)
    case = RiskCase.objects.create(campaign=growth.campaign, score=60)
    RiskMember.objects.create(case=case, campaign=growth.campaign, participant=person.participant)
    with transaction.atomic():
        asked = {"campaign": growth.campaign.slug, "user": USER}
        key = f"{case.pk}:{person.participant.hex()}"
        outbox_emit(EventKind.CHALLENGE_ASKED, app_id, asked, key=key)
    kinds = sorted(told.values_list("kind", flat=True))
    assert kinds == ["challenge.asked", "claim.settled", "payout.paid"]
    delivery = told.earliest("id").deliveries.get()
    WebhookAttempt.objects.create(delivery=delivery, number=1, latency_ms=1, answer=f"hi {NAME}")
    ClientApp.objects.filter(pk=app_id).update(test_users_allowed=True)
    forced.forced_outcome_set(client_app_id=app_id, subject=USER, result="busy", actor="test")


# --- a search of everything -----------------------------------------------------------------------

_COLUMNS = """
SELECT table_name, column_name, data_type FROM information_schema.columns
  JOIN information_schema.tables USING (table_schema, table_name)
 WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
   AND data_type IN ('text', 'character varying', 'jsonb', 'json', 'bytea', 'ARRAY')
"""
_SEALED = re.compile(r"[0-9A-Za-z]+:gAAAA[0-9A-Za-z_=-]+\Z")


def found(dsn: str) -> set[str]:
    """`table.column` of whatever says a needle, also below encryption and in bytes."""
    places = set()
    with psycopg.connect(dsn) as link:
        for table, column, _kind in link.execute(_COLUMNS).fetchall():
            values = link.execute(
                sql.SQL("SELECT {column} FROM {table} WHERE {column} IS NOT NULL").format(
                    column=sql.Identifier(column), table=sql.Identifier(table)
                )
            ).fetchall()
            if any(needle in text for (value,) in values for text in _said(value)
                   for needle in NEEDLES):  # fmt: skip
                places.add(f"{table}.{column}")
    return places


def _said(value: Any) -> list[str]:
    text = bytes(value).decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if _SEALED.match(text):
        return [text, crypto.decrypt(text).decode("utf-8", "replace")]
    return [text]


def test_after_it_nothing_says_who_it_was_and_the_books_are_the_same(
    growth: CampaignGrowth, rail: Rail, superuser_dsn: str
) -> None:
    everything_happens(growth, rail)
    books, claims = wallets.books(), list(Claim.objects.order_by("id").values())
    payouts = list(Payout.objects.values_list("id", "amount_fen", "payee_hash", "state"))
    before = found(superuser_dsn)
    assert before == {
        "engine_forcedoutcome.subject",
        "engine_idempotencyrecord.response",
        "engine_outboxevent.payload",
        "engine_webhookattempt.answer",
        "packets_holdappeal.text_encrypted",
        "packets_participant.subject",
        "packets_payout.payee_encrypted",
        "packets_payoutcall.detail",
        "packets_payoutnumber.request_encrypted",
        "packets_peoplepacket.message",
        "packets_ticket.key",
        "packets_ticket.reason",
        "referrals_qualification.qualified_by",
        "referrals_reward.qualified_by",
        "referrals_serverevent.key",
    }, "the control: the search sees what is there"
    would = erase(growth, dry_run=True)
    assert found(superuser_dsn) == before
    assert not AuditEvent.objects.filter(action="person.erase").exists()

    erased = erase(growth, reason="asked for by mail")

    assert found(superuser_dsn) == set()
    assert erased == would
    assert wallets.books() == books
    assert list(Claim.objects.order_by("id").values()) == claims
    assert list(Payout.objects.values_list("id", "amount_fen", "payee_hash", "state")) == payouts
    assert not Identity.objects.filter(participant=who(growth).participant).exists()
    assert not ShareLink.objects.filter(
        participant=who(growth).participant, revoked_at=None
    ).exists()
    event = AuditEvent.objects.get(action="person.erase")
    assert event.object_id == who(growth).participant.hex() and event.after == erased
    wallets.assert_sound()
    assert erase(growth) == {}, "a repeat finds nothing"
    assert AuditEvent.objects.filter(action="person.erase").count() == 1


def test_a_click_that_bound_them_is_forgotten_and_others_aren_t(growth: CampaignGrowth) -> None:
    person = who(growth).participant
    link = link_of(growth, "inviter")
    for number, address in enumerate(("203.0.113.1", "203.0.114.1")):
        visit_record(
            link=link,
            vehicle="link",
            place=place_of(address, str(number)),
            agent="wechat",
            most_per_hour=10,
        )
    theirs, other = Visit.objects.order_by("id")
    touch = Touch(link, Referral.Source.CLICK, theirs.click_id)
    referral_bind(growth=growth, invitee=person, client_app_id=app(growth).pk, touch=touch)

    assert erase(growth)["visits"] == 1

    theirs.refresh_from_db()
    assert (theirs.network_hash, theirs.visitor_hash, theirs.agent) == ("", "", "")
    kept = Visit.objects.get(pk=other.pk)
    assert kept.network_hash and kept.visitor_hash and kept.agent


def test_it_is_refused_until_everything_has_come_to_its_end(
    growth: CampaignGrowth, rail: Rail
) -> None:
    """Each refusal names what is left and changes nothing."""
    world.claim(Packet.objects.get(campaigns=growth.campaign), who(growth))

    def left() -> list[str]:
        with pytest.raises(ServiceError) as refusal:
            erase(growth)
        assert refusal.value.code == "unfinished"
        matters = unfinished(app(growth).pk, USER)
        assert all(str(matter) in str(refusal.value) for matter in matters)
        assert Participant.objects.filter(subject=USER).exists()
        return [matter.what for matter in matters]

    assert left() == ["claims"]
    settle()
    assert left() == ["wallet"]
    funder = Packet.objects.get(campaigns=growth.campaign).funder_id
    hold = hold_wallet(
        participant=who(growth).participant,
        amount_fen=1,
        funder_id=funder,
        reasons=[RiskReason.FARM],
        actor="staff:eva",
        reason="a look",
    )
    assert hold is not None
    assert left() == ["wallet", "held", "holds"]
    hold_release(hold_id=hold.pk, actor="staff:eva", reason="fine")
    sent = people_packet_create(sender=who(growth), wanted=Wanted("fixed", 2, 2), key="p1")
    assert left() == ["wallet", "packets"]
    services.packet_close(packet_id=sent.pk, actor="test")
    payout = withdraw(growth)
    assert left() == ["payouts"]
    pay(payout, rail)
    upload = TargetUpload.objects.create(
        packet=Packet.objects.get(campaigns=growth.campaign),
        client_app=app(growth),
        filename="people.csv",
        sha256="",
    )
    for number, text in enumerate((f"x{USER}\nbob", f"bob\n{USER},vip")):
        TargetUploadPart.objects.create(
            upload=upload, number=number, first_row=1, rows=2, text=text
        )
    assert left() == ["lists"]
    TargetUploadPart.objects.filter(number=1).delete()
    assert erase(growth)["names"] == 1


def test_who_comes_back_is_written_down_anew_and_has_nothing_twice(
    growth: CampaignGrowth, rail: Rail
) -> None:
    win(growth)
    pay(withdraw(growth), rail)
    erase(growth)
    packet = Packet.objects.get(campaigns=growth.campaign)
    world.wipe_redis()

    again = world.claim(packet, who(growth))

    assert again.result is Result.WON and again.replayed
    assert Claim.objects.count() == 1 and available_fen(growth) == 0
    assert not Participant.objects.filter(subject=USER).exists(), "they only asked"
    other = world.open_packet(client_apps=[app(growth).pk])
    assert world.claim(other, who(growth)).result is Result.WON
    assert Participant.objects.get(digest=who(growth).participant).subject == USER
    settle()
    wallets.assert_sound()


def test_killed_in_the_middle_it_never_happened_and_a_repeat_does_it(
    growth: CampaignGrowth, rail: Rail, superuser_dsn: str
) -> None:
    everything_happens(growth, rail)
    before = found(superuser_dsn)
    command = [sys.executable, "manage.py", "erase_person", "--app", app(growth).slug]
    with psycopg.connect(superuser_dsn) as link:
        # The last row that it touches is held, so everything else is done when it is killed.
        link.execute("SELECT FROM packets_participant WHERE subject = %s FOR UPDATE", [USER])
        running = subprocess.Popen([*command, "--user", USER], cwd=Path.cwd(), env=dict(os.environ))
        waiting = (
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%laisee_erase_person%' AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(superuser_dsn, autocommit=True) as watch:
            try:
                wait_until(
                    lambda: watch.execute(waiting).fetchone(), 60, "the command to reach the lock"
                )
                [pid] = watch.execute(waiting).fetchone() or [0]
            finally:
                os.kill(running.pid, signal.SIGKILL)
                running.wait(10)
            link.rollback()
            gone = "SELECT FROM pg_stat_activity WHERE pid = %s"
            wait_until(lambda: not watch.execute(gone, [pid]).fetchone(), 30, "its backend to end")
    assert found(superuser_dsn) == before
    call_command("erase_person", app=app(growth).slug, user=USER)
    assert found(superuser_dsn) == set()


def test_the_command_says_what_it_does(growth: CampaignGrowth, capsys: Any) -> None:
    win(growth)
    slug = app(growth).slug
    with pytest.raises(CommandError, match=r"money in the wallet \(1, ¥"):
        call_command("erase_person", app=slug, user=USER)
    with pytest.raises(CommandError, match="no client app 'nowhere'"):
        call_command("erase_person", app="nowhere", user=USER)
    link_of(growth, "bob")
    call_command("erase_person", app=slug, user="bob", dry_run=True)
    call_command("erase_person", app=slug, user="bob")
    call_command("erase_person", app=slug, user="bob")
    assert capsys.readouterr().out.splitlines() == [
        "would erase: share links: 1",
        "erased: share links: 1",
        "nothing is left of this person that says who they are",
    ]


def test_rows_written_once_allow_erasing_and_nothing_else(
    growth: CampaignGrowth, rail: Rail, owner_dsn: str
) -> None:
    """Even to the owner; and the application's role may change none of it by itself."""
    everything_happens(growth, rail)
    refused = (
        "UPDATE packets_holdappeal SET text_encrypted = 'other words'",
        "UPDATE packets_ticket SET key = 'erased', serial = 7",
        "UPDATE packets_ticket SET key = 'mine'",
        "UPDATE referrals_serverevent SET key = 'erased:' || id, kind = 'joined'",
        "UPDATE packets_payout SET payee_masked = 'somebody else'",
        "UPDATE packets_payout SET payee_masked = '', amount_fen = amount_fen + 1",
        "UPDATE packets_payoutnumber SET request_encrypted = 'other'",
        "UPDATE packets_payoutcall SET detail = 'other'",
        'UPDATE engine_outboxevent SET payload = payload || \'{"user": "bob"}\'',
        'UPDATE engine_outboxevent SET payload = payload || \'{"user": null, "amount_fen": 1}\'',
        "UPDATE engine_webhookattempt SET answer = 'other'",
        "UPDATE packets_transfer SET reference = ''",
    )
    allowed = (
        "UPDATE packets_holdappeal SET text_encrypted = ''",
        "UPDATE packets_ticket SET key = 'erased:' || id, reason = ''",
        "UPDATE packets_payout SET payee_masked = ''",
        "UPDATE engine_outboxevent SET payload = payload || '{\"user\": null}'",
    )
    with psycopg.connect(owner_dsn, autocommit=True) as link:
        for statement in refused:
            with pytest.raises(psycopg.errors.IntegrityError):
                link.execute(statement)  # type: ignore[call-overload]
        for statement in allowed:
            assert link.execute(statement).rowcount > 0  # type: ignore[call-overload]
    with pytest.raises(Error, match="permission denied"), transaction.atomic():
        HoldAppeal.objects.update(text_encrypted="")


# --- forgetting -----------------------------------------------------------------------------------


def traces(growth: CampaignGrowth, name: str, age_days: int) -> None:
    """A phone, a network, a visit, a complaint and a refused row of that age."""
    place = place_of(f"203.0.113.{age_days % 250}", name)
    noting.sightings_keep(
        [Sighting(None, world.person(name).participant, 1, name, "203.0.113.9", "")]
    )
    link = link_of(growth, "inviter")
    Complaint.objects.create(link=link, campaign=growth.campaign, network_hash=f"k1:{name}")
    visit_record(link=link, vehicle="link", place=place, agent="wechat", most_per_hour=100)
    upload = TargetUpload.objects.create(
        packet=Packet.objects.get(campaigns=growth.campaign),
        client_app=app(growth),
        filename=name,
        sha256="",
    )
    TargetUploadError.objects.create(upload=upload, row=1, text=name, code="format")
    person = world.person(name).participant
    with connection.cursor() as cursor:
        ago = "make_interval(days => %s)"
        for statement, key in (
            (f"referrals_identity SET last_seen = last_seen - {ago} WHERE participant", person),
            (f"referrals_visit SET at = at - {ago} WHERE visitor_hash", place.visitor),
            (f"referrals_complaint SET at = at - {ago} WHERE network_hash", f"k1:{name}"),
            (f"campaign_targetupload SET created_at = created_at - {ago} WHERE filename", name),
        ):
            cursor.execute(f"UPDATE {statement} = %s", [age_days, key])


def test_what_is_old_is_forgotten_in_batches_once(
    growth: CampaignGrowth, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(forgetting, "BATCH", 2)
    for number, age_days in enumerate((200, 120, 92, 1, 0)):
        traces(growth, f"n{number}", age_days)
    visits = Visit.objects.count()
    for name in ("old", "young"):
        CircleTry.objects.create(campaign=growth.campaign, invitee=name.encode(), inviter=b"x")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE referrals_circletry SET at = at - interval '99 days' WHERE invitee = %s",
            [b"old"],
        )

    call_command("forget_identities", older_than=91)

    said = capsys.readouterr().out.splitlines()
    assert "identities: 2 so far" in said and "visits: 2 so far" in said
    assert said[-1] == "identities: 6, visits: 3, complaints: 3, circles: 1, refused_rows: 3"
    assert Identity.objects.count() == 4 and Visit.objects.count() == visits
    blank = Visit.objects.filter(network_hash="", visitor_hash="")
    assert blank.count() == 3 and blank.exclude(agent="wechat").count() == 0
    kept = Complaint.objects.exclude(network_hash__startswith=forgetting.GONE)
    assert Complaint.objects.count() == 5 and kept.count() == 2
    assert TargetUploadError.objects.count() == 2
    event = AuditEvent.objects.get(action="privacy.forget")
    assert event.after["identities"] == 6

    call_command("forget_identities", older_than=91)
    assert AuditEvent.objects.filter(action="privacy.forget").count() == 1
    with pytest.raises(CommandError):
        call_command("forget_identities", older_than=0)


def test_workers_forget_by_themselves(growth: CampaignGrowth, settings: Any) -> None:
    traces(growth, "old", settings.IDENTITIES_KEPT_DAYS + 1)
    traces(growth, "young", settings.IDENTITIES_KEPT_DAYS - 1)
    assert identities_forget.name in SWEEPS
    identities_forget()
    left = Identity.objects.values_list("participant", flat=True).distinct()
    assert [bytes(one) for one in left] == [world.person("young").participant]


def test_a_reward_that_is_earned_and_not_granted_yet_comes_first() -> None:
    growth = rewarding()
    due = qualified(growth, "bob", USER)
    assert [matter.what for matter in unfinished(app(growth).pk, USER)] == ["rewards"]

    person_ban(
        participant=who(growth).participant, campaign=growth.campaign, actor="x", reason="a farm"
    )
    assert unfinished(app(growth).pk, USER) == [], "it waits for us, and maybe for ever"
    assert due.done_at is None


def test_lifting_a_ban_gives_an_erased_person_no_links_back() -> None:
    growth = sharing()
    link = link_of(growth, USER)
    made = person_ban(
        participant=who(growth).participant, campaign=growth.campaign, actor="x", reason="a farm"
    )
    erase(growth)
    ban_lift(ban_id=made.pk, actor="x", reason="over")

    link.refresh_from_db()
    assert (link.revoked_at is None, link.revoke_reason) == (False, "the person was erased")
