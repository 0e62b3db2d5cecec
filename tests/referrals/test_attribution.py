"""Who counts as the inviter where several have led somebody here: first or last touch, by
Postgres's clock; and a way that is switched off leads nowhere."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.db import connection

from campaign.models import CampaignChannel, CampaignGrowth, Channel, Vehicle
from engine.lib.auth import Caller
from packets.models import Packet
from referrals.forest import touches
from referrals.forest.attribution import inviting
from referrals.forest.binding import BindResult, Touch
from referrals.forest.joining import Lead, friend_join
from referrals.linking import clicks, spread
from referrals.models import Referral, ShareLink, Visit
from tests import world
from tests.campaign import stage as campaigns
from tests.referrals.stage import app_of, link_of, sharing

database = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)  # claims are committed beside the test
FIRST, LAST = CampaignGrowth.Attribution.FIRST, CampaignGrowth.Attribution.LAST
DAY_S = 24 * 3600
BOTH = pytest.mark.parametrize(("mode", "inviter"), [(FIRST, "ann"), (LAST, "bob")])


@pytest.fixture(autouse=True)
def _forget() -> None:
    spread.forget()


def cem(growth: CampaignGrowth, **claims: object) -> Caller:
    return world.person("cem", app_of(growth.campaign), **claims)


def opened(growth: CampaignGrowth, name: str, ago_s: float) -> str:
    """The token of an opening of this person's link so long ago; its own time says nothing."""
    visit = Visit.objects.create(
        link=link_of(growth, name), vehicle="link", click_id=uuid.uuid4(), visitor_hash="one"
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE referrals_visit SET at = clock_timestamp() - make_interval(secs => %s)"
            " WHERE id = %s",
            [ago_s, visit.pk],
        )
    return clicks.sign(clicks.Click(visit.click_id, 1))


def join(growth: CampaignGrowth, code_of: str, *earlier: str) -> BindResult:
    lead = Lead(code=link_of(growth, code_of).code, earlier_clicks=earlier)
    return friend_join(campaign=growth.campaign, friend=cem(growth), lead=lead)


def claims_with(growth: CampaignGrowth, packet: Packet, name: str) -> None:
    world.claim(packet, cem(growth), share_code=link_of(growth, name).code)


def packets_of(growth: CampaignGrowth) -> list[Packet]:
    return list(Packet.objects.filter(campaigns=growth.campaign).order_by("created_at"))


def two_packets(**fields: object) -> CampaignGrowth:
    campaign = campaigns.draft()
    for _ in range(2):
        campaigns.add_packet(campaign)
    return CampaignGrowth.objects.create(campaign=campaigns.launch(campaign), **fields)


def inviter_of_cem(growth: CampaignGrowth) -> str:
    row = Referral.objects.get(campaign=growth.campaign, invitee=cem(growth).participant)
    names = {world.person(n, app_of(growth.campaign)).participant: n for n in ("ann", "bob", "dan")}
    return names[bytes(row.inviter)]


# --- which touch ----------------------------------------------------------------------------------


def test_the_oldest_or_the_newest_and_never_ones_own() -> None:
    def touch(who: bytes, age_s: int, app: int = 1) -> Touch:
        link = ShareLink(participant=who, client_app_id=app)
        return Touch(link, Referral.Source.CLICK, age=dt.timedelta(seconds=age_s))

    old, new, same = touch(b"a", 50), touch(b"b", 10), touch(b"c", 10)
    own, foreign = touch(b"x", 99), touch(b"d", 0, app=2)
    first, last = CampaignGrowth(attribution=FIRST), CampaignGrowth(attribution=LAST)

    assert inviting(first, b"x", 1, [new, own, old, foreign]) is old
    assert inviting(last, b"x", 1, [old, foreign, own, new]) is new
    assert inviting(last, b"x", 1, [same, new]) is same
    assert inviting(last, b"x", 1, [own, foreign]) is None
    assert inviting(first, b"x", 1, []) is None


@database
@BOTH
def test_links_opened_earlier_compete_with_a_typed_code(mode: str, inviter: str) -> None:
    growth = sharing(attribution=mode)
    tokens = [opened(growth, "dan", 100), opened(growth, "ann", 3 * DAY_S)]

    assert join(growth, "bob", *tokens, "nonsense") is BindResult.BOUND

    assert inviter_of_cem(growth) == inviter
    assert Referral.objects.get().source == ("click" if mode == FIRST else "code")


@database
def test_a_click_counts_for_the_window_by_postgres_clock() -> None:
    growth = sharing(attribution=FIRST, window_s=3_600)
    code = link_of(growth, "bob").code

    def invited(name: str, ago_s: float) -> str:
        lead = Lead(code=code, earlier_clicks=(opened(growth, "ann", ago_s),))
        friend = world.person(name, app_of(growth.campaign))
        assert friend_join(campaign=growth.campaign, friend=friend, lead=lead) is BindResult.BOUND
        return Referral.objects.get(invitee=friend.participant).link.code

    assert invited("young", 3_300) == link_of(growth, "ann").code
    assert invited("old", 3_630) == code


@database
def test_what_nobody_handed_over_counts_for_nothing() -> None:
    """The same visitor, as far as one can guess, has opened ann's link: a guess pays nobody."""
    growth = sharing(attribution=FIRST)
    opened(growth, "ann", 60)
    used = opened(growth, "dan", 120)
    lead = Lead(click_token=used)
    other = world.person("eve", app_of(growth.campaign))
    assert friend_join(campaign=growth.campaign, friend=other, lead=lead) is BindResult.BOUND

    assert join(growth, "bob", used) is BindResult.BOUND
    assert inviter_of_cem(growth) == "bob"


@committed
@BOTH
def test_a_claims_code_that_waits_competes_with_a_typed_one(mode: str, inviter: str) -> None:
    growth = sharing(attribution=mode, new_only=True)
    claims_with(growth, packets_of(growth)[0], "ann")

    assert join(growth, "bob") is BindResult.BOUND, "that win is how they came"
    assert touches.touches_bind_due() == 0
    assert inviter_of_cem(growth) == inviter


@committed
@BOTH
def test_of_two_codes_that_wait_the_mode_picks_one(mode: str, inviter: str) -> None:
    growth = two_packets(attribution=mode, new_only=True)
    for packet, name in zip(packets_of(growth), ("ann", "bob"), strict=True):
        claims_with(growth, packet, name)

    assert touches.touches_bind_due() == 1
    assert inviter_of_cem(growth) == inviter


# --- ways that are off ----------------------------------------------------------------------------


def off(growth: CampaignGrowth, *vehicles: str) -> None:
    for vehicle in vehicles:
        CampaignChannel.objects.update_or_create(
            campaign=growth.campaign,
            channel=Channel.WECHAT,
            vehicle=vehicle,
            defaults={"is_on": False},
        )
    spread.forget()


@database
def test_a_code_of_a_channel_whose_texts_are_off_is_unknown_when_typed() -> None:
    growth = sharing()
    token = opened(growth, "ann", 60)
    off(growth, Vehicle.TEXT)

    assert join(growth, "ann") is BindResult.UNKNOWN_CODE
    lead = Lead(click_token=token)
    assert friend_join(campaign=growth.campaign, friend=cem(growth), lead=lead) is BindResult.BOUND


@committed
@pytest.mark.parametrize(("vehicles", "bound"), [([Vehicle.TEXT], 1), (Vehicle.values, 0)])
def test_a_claims_code_counts_while_any_way_of_its_channel_is_on(
    vehicles: list[str], bound: int
) -> None:
    growth = sharing()
    off(growth, *vehicles)
    claims_with(growth, packets_of(growth)[0], "ann")

    assert touches.touches_bind_due() == bound
