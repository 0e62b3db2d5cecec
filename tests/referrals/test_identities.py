"""What is kept of phones and networks: hashes, of shared campaigns' people only, and comparable."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from engine.lib import auth
from engine.models import ClientApp
from packets import sightings
from packets.models import Packet
from packets.sightings import Sighting
from referrals.forest.binding import BindResult
from referrals.models import Identity
from referrals.risk import noting
from referrals.risk.detectors import Reason, find
from referrals.risk.identities import identities_of
from referrals.risk.people import NONE
from referrals.risk.reading import campaign_people
from tests import world
from tests.api.doors import DOORS, Visitor, forget_packets
from tests.campaign import stage
from tests.referrals.stage import app_of, bind, link_of, sharing

database = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)


def noticed() -> None:
    """The doors' thread has told everything."""
    while sightings.hand_on():
        pass


@pytest.fixture(autouse=True)
def nobody_is_known() -> Iterator[None]:
    sightings._waiting.clear()
    noting.forget()
    auth.key_ring.forget()
    forget_packets()
    yield
    sightings._waiting.clear()


def seen(name: str, device: str = "", peer: str = "", app: int = 1, **more: Any) -> Sighting:
    """Somebody who joined or shared."""
    person = world.person(name, app)
    return Sighting(more.get("packet"), person.participant, app, device, peer, "")


def keys(*ids: str) -> list[str]:
    return [f"{one}:{base64.urlsafe_b64encode(one.ljust(32).encode()).decode()}" for one in ids]


# --- the doors ------------------------------------------------------------------------------------


@committed
@pytest.mark.parametrize("door", list(DOORS))
def test_a_winner_of_a_shared_campaign_is_noted_and_nobody_else(door: str) -> None:
    growth, quiet = sharing(), sharing(is_on=False)
    kinds = {}
    for one in (growth, quiet):
        app = ClientApp.objects.get(pk=app_of(one.campaign))
        packet = Packet.objects.get(campaigns=one.campaign)
        visitor = Visitor(DOORS[door](), f"Bearer {stage.token(app, 'ann', dev='phone-1')}")
        for _ in range(2):
            answer = visitor.post(f"/packets/{packet.id.hex}/claims", {})
            assert answer.json["result"] == "won"
        assert len(sightings._waiting) == 1, "a repeat is noted once more"
        noticed()
        person = world.person("ann", app.pk).participant
        rows = Identity.objects.filter(participant=person)
        kinds[one.pk] = sorted(rows.values_list("kind", flat=True))
        for row in rows:
            assert len(row.digest) == noting.DIGEST_BYTES
            assert b"phone" not in bytes(row.digest) and row.first_seen == row.last_seen
    assert kinds == {growth.pk: ["device", "network"], quiet.pk: []}


@committed
def test_who_joins_and_who_shares_is_noted_too() -> None:
    growth = sharing()
    app = ClientApp.objects.get(pk=app_of(growth.campaign))
    slug = growth.campaign.slug
    ann, bob = (
        Visitor(DOORS["web"](), f"Bearer {stage.token(app, name, dev='phone-1')}")
        for name in ("ann", "bob")
    )
    shared = ann.post(f"/campaigns/{slug}/share-links", {"channel": "wechat"})
    joined = bob.post(f"/campaigns/{slug}/referral", {"code": shared.json["code"]})
    assert joined.json == {"result": "bound"}
    noticed()
    people = [world.person(name, app.pk).participant for name in ("ann", "bob", "cem")]
    found = identities_of(people)
    assert found.device.tolist() == found.network.tolist() == [0, 0, NONE]


# --- what is written ------------------------------------------------------------------------------


@database
def test_hashes_are_of_one_app_and_networks_are_cut() -> None:
    noting.sightings_keep(
        [
            seen("ann", "phone-1", "203.0.113.7"),
            seen("bob", "phone-1", "203.0.113.250"),
            seen("cem", "phone-1", "203.0.114.7"),
            seen("ann", "phone-1", "203.0.113.7", app=2),
        ]
    )
    people = [world.person(name).participant for name in ("ann", "bob", "cem")]
    found = identities_of([*people, world.person("ann", 2).participant])
    assert found.device.tolist() == [0, 0, 0, 1]
    assert found.network.tolist() == [0, 0, 1, 2]


@database
def test_seen_again_changes_a_day_and_nothing_else() -> None:
    assert noting.sightings_keep([seen("ann", "phone-1", "203.0.113.7")]) == 2
    assert noting.sightings_keep([seen("ann", "phone-1", "203.0.113.7")]) == 0
    Identity.objects.update(first_seen="2026-01-01", last_seen="2026-01-02")
    noting.forget()  # another process, or another day
    assert noting.sightings_keep([seen("ann", "phone-1", "203.0.113.7")]) == 2
    assert Identity.objects.count() == 2
    for row in Identity.objects.all():
        assert str(row.first_seen) == "2026-01-01" and str(row.last_seen) > "2026-01-02"


@database
def test_people_before_and_after_a_change_of_keys_are_compared(settings: Any) -> None:
    """Until the next change: then the oldest hashes say nothing any more."""
    rounds = (("ann", keys("k1")), ("bob", keys("k2", "k1")), ("cem", keys("k3", "k2", "k1")))
    for name, current in rounds:
        settings.ENCRYPTION_KEYS = current
        noting.sightings_keep([seen(name, "phone-1")])
    people = {name: world.person(name).participant for name, _ in rounds}

    def together(*names: str) -> bool:
        return len(set(identities_of([people[name] for name in names]).device.tolist())) == 1

    assert together("ann", "bob") and together("bob", "cem") and not together("ann", "cem")
    by_key = Identity.objects.filter(participant=people["bob"]).values_list("key_id", flat=True)
    assert sorted(by_key) == ["k1", "k2"]


@database
def test_of_several_phones_the_one_shared_with_most_counts() -> None:
    noting.sightings_keep(
        [seen(name, device) for name, device in (("ann", "a"), ("bob", "b"), ("bob", "shared"))]
    )
    noting.sightings_keep([seen("ann", "shared"), seen("cem", "shared"), seen("dan", "b")])
    people = [world.person(name).participant for name in ("ann", "bob", "cem", "dan")]
    assert identities_of(people).device.tolist() == [0, 0, 0, 1]


@committed
def test_what_can_t_be_written_is_noted_with_the_next_sight(superuser_dsn: str) -> None:
    """A door goes on, and whoever was lost isn't thought to be known."""
    app = world.APP
    with psycopg.connect(superuser_dsn, autocommit=True) as link:
        link.execute("ALTER TABLE referrals_identity RENAME TO elsewhere")
        try:
            sightings.note(None, world.person("ann", app, device="phone-1"), "", "")
            assert sightings.hand_on() == 1
        finally:
            link.execute("ALTER TABLE elsewhere RENAME TO referrals_identity")
    assert not Identity.objects.exists()
    sightings.note(None, world.person("ann", app, device="phone-1"), "", "")
    noticed()
    assert Identity.objects.get().kind == "device"


def test_what_waits_is_bounded() -> None:
    ann = world.person("ann")
    sightings._waiting.extend([Sighting(None, b"", 1, "", "", "")] * sightings.MAX_WAITING)
    sightings.note(None, ann, "", "")
    assert sightings._waiting[-1].participant == b""
    sightings._waiting.popleft()
    sightings.note(None, ann, "", "")
    assert len(sightings._waiting) == sightings.MAX_WAITING
    assert sightings._waiting[-1].participant == ann.participant


# --- what it is for -------------------------------------------------------------------------------


@database
def test_circles_that_were_refused_are_read_once() -> None:
    growth = sharing()
    app = app_of(growth.campaign)
    for inviter, friend in pairwise(("ann", "bob", "cem", "dan", "eve", "fay")):
        bind(growth, friend, inviter)
    for _ in range(2):
        assert bind(growth, "ann", "cem") is BindResult.CYCLE
    assert bind(growth, "ann", "ann") is BindResult.SELF

    people, rows = campaign_people(growth.campaign_id)

    [[friend, inviter]] = rows.refused.tolist()
    assert people[friend] == world.person("ann", app).participant
    assert people[inviter] == world.person("cem", app).participant
    noting.sightings_keep([seen(name, "phone-1", app=app) for name in ("ann", "bob", "cem")])
    people, rows = campaign_people(growth.campaign_id)
    assert Reason.CYCLE in find(rows)[0].evidence


@database
def test_a_chain_on_one_phone_is_a_cluster_before_anybody_was_paid() -> None:
    growth = sharing()
    app = app_of(growth.campaign)
    chain = [f"p{number}" for number in range(8)]
    link_of(growth, chain[0])
    for inviter, friend in pairwise(chain):
        bind(growth, friend, inviter)
    people, rows = campaign_people(growth.campaign_id)
    assert not any(Reason.CLUSTER in found.reasons for found in find(rows)), "the control"

    noting.sightings_keep([seen(name, "phone-1", app=app) for name in chain])

    people, rows = campaign_people(growth.campaign_id)
    [found] = [one for one in find(rows) if Reason.CLUSTER in one.reasons]
    assert {people[row] for row in found.rows} == {
        world.person(name, app).participant for name in chain
    }
