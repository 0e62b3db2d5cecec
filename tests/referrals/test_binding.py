"""Binding: once, never to oneself, never in a circle, whoever else binds meanwhile."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable

import pytest
from django.db import connection

from campaign.models import CampaignGrowth
from packets.models import Packet
from referrals.forest import binding
from referrals.forest.binding import BindResult, referral_bind, top_of, touch_of_click
from referrals.linking import clicks, codes
from referrals.models import Referral, Visit
from tests import world
from tests.campaign import stage as campaigns
from tests.referrals.stage import app_of, bind, link_of, sharing

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = 50


def edges(growth: CampaignGrowth) -> dict[bytes, bytes]:
    rows = Referral.objects.filter(campaign=growth.campaign).values_list("invitee", "inviter")
    return {bytes(invitee): bytes(inviter) for invitee, inviter in rows}


def circles(parents: dict[bytes, bytes]) -> int:
    """How many people stand above themselves."""
    found = 0
    for person in parents:
        seen, above = {person}, parents.get(person)
        while above is not None and above not in seen:
            seen.add(above)
            above = parents.get(above)
        found += above == person
    return found


# --- one friend -----------------------------------------------------------------------------------


def test_a_friend_is_bound_once() -> None:
    growth = sharing()

    assert bind(growth, "bob", "ann") is BindResult.BOUND
    assert bind(growth, "bob", "ann") is BindResult.ALREADY_BOUND
    assert bind(growth, "bob", "cem") is BindResult.ALREADY_BOUND
    assert bind(growth, "ann", "ann") is BindResult.SELF
    [row] = Referral.objects.all()
    ann = world.person("ann", app_of(growth.campaign)).participant
    assert (bytes(row.inviter), bytes(row.root), row.depth) == (ann, ann, 1)


def test_circles_of_any_length_are_refused() -> None:
    growth = sharing()
    for number in range(1, 10):
        assert bind(growth, f"p{number}", f"p{number - 1}") is BindResult.BOUND

    for number in range(1, 10):
        assert bind(growth, "p0", f"p{number}") is BindResult.CYCLE
    assert Referral.objects.order_by("-depth").first().depth == 9


def test_a_tree_that_is_hung_under_another_keeps_its_rows_and_finds_its_top() -> None:
    growth = sharing()
    app = app_of(growth.campaign)
    bind(growth, "b", "a")
    bind(growth, "c", "b")
    bind(growth, "a", "z")  # the whole tree of a, under z
    bind(growth, "z", "top")

    top = top_of(growth.campaign.pk, world.person("c", app).participant)

    assert top.person == world.person("top", app).participant
    assert top.depth == 4
    assert bind(growth, "top", "c") is BindResult.CYCLE


def test_only_new_people_where_the_campaign_says_so() -> None:
    app = campaigns.make_app()
    growth = sharing(app, new_only=True)
    packet = Packet.objects.get(campaigns=growth.campaign)
    world.claim(packet, world.person("old", app.pk))

    assert bind(growth, "old", "ann") is BindResult.NOT_NEW
    assert bind(growth, "liar", "ann", is_new=False) is BindResult.NOT_NEW
    assert bind(growth, "fresh", "ann") is BindResult.BOUND
    assert bind(growth, "told", "ann", is_new=True) is BindResult.BOUND


def test_codes_are_read_however_they_are_typed() -> None:
    assert codes.canonical(" oil0-abcde f") == "0110ABCDEF"
    for wrong in ("", "short", "U" * 10, "A" * 11, "A" * 500, "ABCDEFGHI!"):
        assert codes.canonical(wrong) is None
    assert len({codes.draw() for _ in range(1_000)}) == 1_000


# --- clicks ---------------------------------------------------------------------------------------


def test_a_click_is_good_once_and_for_a_while() -> None:
    growth = sharing(window_s=3_600)
    app = app_of(growth.campaign)
    link = link_of(growth, "ann")
    click = clicks.Click(id=uuid.uuid4(), at=1)
    Visit.objects.create(link=link, vehicle="link", click_id=click.id)
    token = clicks.sign(click)

    def join(name: str) -> BindResult:
        touch = touch_of_click(growth, token)
        if isinstance(touch, BindResult):
            return touch
        return referral_bind(
            growth=growth,
            invitee=world.person(name, app).participant,
            client_app_id=app,
            touch=touch,
        )

    assert join("bob") is BindResult.BOUND
    assert join("cem") is BindResult.EXPIRED  # used up
    with connection.cursor() as cursor:
        cursor.execute("UPDATE referrals_visit SET at = now() - interval '2 hours'")
    assert join("dan") is BindResult.EXPIRED
    assert touch_of_click(growth, token[:-2] + "AA") is BindResult.UNKNOWN_CODE
    assert touch_of_click(growth, "nonsense") is BindResult.UNKNOWN_CODE


# --- everybody at once ----------------------------------------------------------------------------


def at_once(work: list[Callable[[], object]], threads: int = 16) -> list[object]:
    results = world.together(work, threads)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def test_five_hundred_binds_at_once_leave_a_forest() -> None:
    """Rings of every length among fifty people, and whatever else they type meanwhile."""
    growth = sharing()
    for number in range(PEOPLE):
        link_of(growth, f"p{number}")
    dice = random.Random(7)
    pairs = [(number, (number + 1) % PEOPLE) for number in range(PEOPLE)]
    pairs += [(dice.randrange(PEOPLE), dice.randrange(PEOPLE)) for _ in range(450)]
    dice.shuffle(pairs)

    results = at_once([lambda a=a, b=b: bind(growth, f"p{a}", f"p{b}") for a, b in pairs])

    parents = edges(growth)
    assert circles(parents) == 0
    assert len(parents) == sum(result is BindResult.BOUND for result in results) <= PEOPLE - 1
    # As a forest of fifty people would have it: everybody who asked and could be is bound.
    assert len(parents) >= PEOPLE // 2


def _meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look at the tops before either goes on: the moment that the locks are for."""
    both = threading.Barrier(2, timeout=20)
    real, seen = binding.top_of, threading.local()

    def look(campaign_id: object, person: bytes) -> binding.Top:
        top = real(campaign_id, person)  # type: ignore[arg-type]
        if not getattr(seen, "once", False):
            seen.once = True
            both.wait()
        return top

    monkeypatch.setattr(binding, "top_of", look)


def test_two_who_invite_each_other_in_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    growth = sharing()
    for name in ("ann", "bob"):
        link_of(growth, name)
    _meeting(monkeypatch)

    results = at_once(
        [lambda: bind(growth, "ann", "bob"), lambda: bind(growth, "bob", "ann")], threads=2
    )

    assert sorted(str(result) for result in results) == ["bound", "cycle"]
    assert circles(edges(growth)) == 0


@pytest.mark.control
def test_without_the_locks_two_close_a_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    growth = sharing()
    for name in ("ann", "bob"):
        link_of(growth, name)
    _meeting(monkeypatch)
    monkeypatch.setattr(binding, "_lock", lambda *args, **named: None)

    at_once([lambda: bind(growth, "ann", "bob"), lambda: bind(growth, "bob", "ann")], threads=2)

    assert circles(edges(growth)) == 2


@pytest.mark.control
def test_without_the_walk_a_ring_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    growth = sharing()
    nobody = binding.Top(b"\0" * 16, 0)
    monkeypatch.setattr(binding, "top_of", lambda *args: nobody)

    for number in range(3):
        bind(growth, f"p{number}", f"p{(number + 1) % 3}")

    assert circles(edges(growth)) == 3
