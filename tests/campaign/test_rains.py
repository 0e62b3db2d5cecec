"""Red-packet rain: made in one step, shown with its times, moved when the gala is late."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from campaign import services
from campaign.admin.forms import local
from campaign.models import Campaign, CampaignPacket, Rain
from campaign.versions import differences, version_hash
from engine.lib import clock
from engine.lib.errors import ServiceError, TransitionRefused
from engine.models import AuditEvent
from packets import invariants
from packets.claiming.effects import Result
from packets.models import Claim, Packet
from tests import world
from tests.admin import desk
from tests.api.doors import Visitor, WebDoor, forget_packets
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = dt.timedelta(minutes=1)
RAIN: dict[str, Any] = {
    "name_zh": "除夕红包雨",
    "name_en": "Lantern rain",
    "rounds": 3,
    "interval_s": 600,
    "length_s": 60,
    "total_fen": 1_000,
    "count": 10,
}


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False


def soon() -> dt.datetime:
    return (clock.now() + 5 * MINUTE).replace(microsecond=0)


def rain(campaign: Campaign, **instead: Any) -> Rain:
    fields = {**RAIN, "first_at": soon(), **instead}
    return services.rain_create(
        campaign_id=campaign.pk, actor=stage.ACTOR, by=stage.member("operations", "ann"), **fields
    )


def rounds_of(made: Rain) -> list[Packet]:
    links = made.links.select_related("packet").order_by("round")
    return [link.packet for link in links]


def move(campaign: Campaign, packet: Packet, by: dt.timedelta, **instead: Any) -> Packet:
    fields = {
        "opens_at": packet.opens_at + by,
        "closes_at": packet.closes_at + by,
        "reason": "the gala is late",
        **instead,
    }
    return services.round_move(
        campaign_id=campaign.pk, packet_id=packet.pk, actor="staff:ann", **fields
    )


# --- making ---------------------------------------------------------------------------------------


def test_a_rain_is_made_in_one_step() -> None:
    campaign, first_at = stage.draft(), soon()

    made = rain(campaign, first_at=first_at, strategy="fixed", needs_ticket=True)

    rounds = rounds_of(made)
    assert [(p.name, p.opens_at, p.closes_at) for p in rounds] == [
        (f"除夕红包雨 {n}", first_at + (n - 1) * 10 * MINUTE, first_at + (10 * n - 9) * MINUTE)
        for n in (1, 2, 3)
    ]
    assert {(p.total_fen, p.count, p.strategy, p.needs_ticket) for p in rounds} == {
        (1_000, 10, "fixed", True)
    }
    assert stage.audited(campaign)[-1] == "campaign.rain_add"


@pytest.mark.parametrize(
    ("instead", "field", "code"),
    [
        ({"rounds": 0}, "rounds", "out_of_range"),
        ({"rounds": 101}, "rounds", "out_of_range"),
        ({"length_s": 4}, "length_s", "out_of_range"),
        ({"interval_s": 86_401}, "interval_s", "out_of_range"),
        ({"length_s": 601}, "length_s", "overlaps"),
        ({"rounds": 8}, "rounds", "outside_campaign"),
        ({"first_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, "first_at", "outside_campaign"),
        ({"total_fen": 50_000}, "budget_fen", "budget_below_packets"),
        ({"name_zh": " "}, "name_zh", "blank"),
        ({"name_en": "a\nb"}, "name_en", "format"),
        ({"count": 0}, "count", "not_positive"),
    ],
)
def test_what_is_refused_changes_nothing(instead: dict[str, Any], field: str, code: str) -> None:
    campaign = stage.draft()
    before = stage.everything()
    with pytest.raises(ServiceError) as refused:
        rain(campaign, **instead)
    assert (refused.value.field, refused.value.code) == (field, code)
    assert stage.everything() == before
    assert not Rain.objects.exists() and not CampaignPacket.objects.exists()


def test_a_rain_is_for_a_campaign_that_has_not_started_and_voids_its_approval() -> None:
    with pytest.raises(TransitionRefused):
        rain(stage.live())
    campaign = stage.scheduled()
    made = rain(campaign, first_at=campaign.starts_at, rounds=2)
    campaign.refresh_from_db()
    assert campaign.state == "draft"

    stage.approve(campaign)
    move(campaign, rounds_of(made)[0], MINUTE)
    campaign.refresh_from_db()
    assert campaign.state == "draft"

    services.rain_remove(campaign_id=campaign.pk, rain_id=made.pk, actor="x")
    assert not Rain.objects.exists()
    assert Packet.objects.filter(campaign_link__campaign=campaign).count() == 1


def test_the_rain_is_part_of_what_is_approved() -> None:
    campaign = stage.draft()
    made = rain(campaign)
    before = version_hash(campaign)
    Rain.objects.filter(pk=made.pk).update(name_en="Another")
    assert version_hash(campaign) != before
    known = {"packets": [{"id": "1", "order": 1, "needs_ticket": True}]}
    (change,) = differences(known, {"packets": [{"id": "1", "order": 1}]})
    assert (change.field, change.before, change.after) == ("needs_ticket", True, None)


def test_rounds_keep_their_times_when_the_campaign_moves() -> None:
    now = clock.now().replace(microsecond=0)
    campaign = stage.draft(starts_at=now, ends_at=now + 60 * MINUTE)
    plain = stage.add_packet(campaign)
    made = rain(campaign, first_at=now, rounds=1, interval_s=3600, length_s=3600)

    services.campaign_update(
        campaign_id=campaign.pk, actor="x",
        starts_at=now - MINUTE, ends_at=now + 90 * MINUTE,
    )  # fmt: skip
    stage.launch(campaign)
    services.campaign_extend(campaign_id=campaign.pk, ends_at=now + 120 * MINUTE, actor="x")

    (only,) = rounds_of(made)
    assert (only.opens_at, only.closes_at) == (now, now + 60 * MINUTE)
    plain.refresh_from_db()
    assert (plain.opens_at, plain.closes_at) == (now - MINUTE, now + 120 * MINUTE)


@pytest.mark.parametrize("way", ["copy", "template", "builder"])
def test_what_is_made_from_a_campaign_has_its_rain(way: str) -> None:
    campaign = stage.draft()
    made = rain(campaign, needs_ticket=True)
    shift = dt.timedelta(days=1)
    fields: dict[str, Any] = {
        "slug": "again", "starts_at": campaign.starts_at + shift, "actor": "x",
    }  # fmt: skip

    if way == "copy":
        services.campaign_copy(campaign_id=campaign.pk, **fields)
    elif way == "template":
        services.template_from_campaign(
            campaign_id=campaign.pk, slug="rainy", name_zh="红包雨", name_en="Rain", actor="x"
        )
        apps = campaign.client_apps.values_list("pk", flat=True)
        services.campaign_create_from_template(template="rainy", client_apps=apps, **fields)
    else:
        answer = desk.at_desk().post(
            f"{desk.HOME}add/?copy={campaign.pk.hex}",
            desk.form(
                campaign.client_apps.get(), slug="again",
                starts_at=f"{local(fields['starts_at'], desk.ZONE):%Y-%m-%dT%H:%M:%S}",
                ends_at=f"{local(campaign.ends_at + shift, desk.ZONE):%Y-%m-%dT%H:%M:%S}",
            ),
        )  # fmt: skip
        assert answer.status_code == 302, desk.refusals(answer)

    copy = Rain.objects.exclude(pk=made.pk).get()
    assert copy.campaign.slug == "again"
    assert (copy.name_zh, copy.name_en) == (made.name_zh, made.name_en)
    moved = [p.opens_at - q.opens_at for p, q in zip(rounds_of(copy), rounds_of(made), strict=True)]
    assert all(shift - dt.timedelta(seconds=2) < by <= shift for by in moved)
    assert {(p.closes_at - p.opens_at, p.needs_ticket) for p in rounds_of(copy)} == {(MINUTE, True)}
    assert Packet.objects.filter(campaign_link__campaign=copy.campaign).count() == 3 + (
        way == "builder"
    )


# --- running --------------------------------------------------------------------------------------


def test_each_round_gives_its_own_portions_and_the_books_are_right() -> None:
    campaign = stage.draft()
    made = rain(campaign)
    stage.launch(campaign)
    app = campaign.client_apps.get().pk
    now = clock.now()
    for number, packet in enumerate(rounds_of(made)):
        Packet.objects.filter(pk=packet.pk).update(
            opens_at=now - 20 * MINUTE, closes_at=now + (10 * number - 5) * MINUTE
        )
    forget_packets()

    alice = world.person("alice", app)
    told = [world.claim(packet, alice).result for packet in rounds_of(made)]

    assert told == [Result.ENDED, Result.WON, Result.WON]
    assert Claim.objects.count() == 2
    assert invariants.invariants_check().holds
    campaign.account.refresh_from_db()
    assert campaign.account.balance_fen == 100_000 - 2_000


def test_a_round_is_moved_after_the_launch_and_the_api_says_so() -> None:
    campaign = stage.draft()
    made = rain(campaign)
    stage.add_packet(campaign)
    stage.launch(campaign)
    app = campaign.client_apps.get()
    alice = Visitor(WebDoor(), f"Bearer {stage.token(app, 'alice')}")
    address = f"/campaigns/{campaign.slug}"
    first = alice.get(address)

    second = rounds_of(made)[1]
    move(campaign, second, 2 * MINUTE)

    shown = alice.get(address, **{"If-None-Match": first.headers["ETag"]})
    assert shown.status == 200
    packets = shown.json["packets"]
    name = {"zh": "除夕红包雨", "en": "Lantern rain"}
    assert [packet["round"] for packet in packets] == [
        *({"name": name, "number": n, "of": 3} for n in (1, 2, 3)),
        None,
    ]
    assert packets[1]["opens_at"] == clock.rfc3339(second.opens_at + 2 * MINUTE)
    assert packets[0] == first.json["packets"][0]
    claim = alice.post(f"/packets/{second.public_id}/claims", {}).json
    assert (claim["result"], claim["opens_at"]) == ("not_started", packets[1]["opens_at"])
    event = AuditEvent.objects.get(action="campaign.round_move")
    assert (event.actor, event.reason) == ("staff:ann", "the gala is late")
    assert event.before == {
        "round": 2,
        "opens_at": clock.rfc3339(second.opens_at),
        "closes_at": clock.rfc3339(second.closes_at),
    }


def test_moves_that_are_refused() -> None:
    campaign = stage.draft()
    made = rain(campaign)
    plain = stage.add_packet(campaign)
    stage.launch(campaign)
    first, second, third = rounds_of(made)
    now = clock.now()
    Packet.objects.filter(pk=first.pk).update(opens_at=now - 2 * MINUTE, closes_at=now - MINUTE)
    Packet.objects.filter(pk=second.pk).update(opens_at=now - MINUTE, closes_at=now + MINUTE)
    first, second, third = rounds_of(made)
    before = stage.everything()

    def refused(packet: Packet, by: dt.timedelta = MINUTE, **instead: Any) -> str:
        with pytest.raises(ServiceError) as told:
            move(campaign, packet, by, **instead)
        assert stage.everything() == before
        return told.value.code

    assert refused(first) == "over"
    assert refused(second) == "started"
    assert refused(third, 24 * 60 * MINUTE) == "outside_campaign"
    assert refused(third, -40 * MINUTE) in ("in_the_past", "outside_campaign")
    assert refused(third, closes_at=third.opens_at + 90 * dt.timedelta(seconds=1)) == "shorter"
    assert refused(third, reason=" ") == "blank"
    assert refused(plain) == "not_found"
    services.campaign_end(campaign_id=campaign.pk, actor="x")
    before = stage.everything()
    assert refused(third) == "transition_refused"


# --- at the desk ----------------------------------------------------------------------------------


def typed(campaign: Campaign, **instead: str) -> dict[str, str]:
    return {
        "name_zh": "除夕红包雨",
        "name_en": "Lantern rain",
        "first_at": f"{local(soon(), desk.ZONE):%Y-%m-%dT%H:%M:%S}",
        "rounds": "3",
        "interval_s": "600",
        "length_s": "60",
        "packet-strategy": "lucky",
        "packet-total": "10",
        "packet-count": "10",
        "packet-evenness": "2",
        "packet-remainder": "lucky",
        "then": "save",
        **instead,
    }


@pytest.mark.parametrize("lang", ["en", "zh-hans"])
def test_staff_see_the_timetable_and_then_make_the_rain(lang: str) -> None:
    campaign = stage.draft()
    ann = desk.at_desk(lang=lang)
    address = f"{desk.HOME}{campaign.pk}/rain/"
    assert ann.get(address).status_code == 200
    fields = typed(campaign)
    starts = local(soon(), desk.ZONE)

    look = ann.post(address, {**fields, "then": "look"})
    assert look.status_code == 200 and not Rain.objects.exists()
    page = look.content.decode()
    assert page.count('<tr><td class="is-num">') == 3
    assert f"{starts + 20 * MINUTE:%Y-%m-%d %H:%M:%S}" in page and "¥30.00" in page

    assert ann.post(address, fields)["Location"] == desk.page_of(campaign)
    made = Rain.objects.get()
    assert [p.total_fen for p in rounds_of(made)] == [1_000] * 3
    shown = ann.get(desk.page_of(campaign)).content.decode()
    assert shown.count("data-move") == 3
    # The builder shows what the rounds bind, not the rounds; and they don't get lost there.
    edit = f"{desk.HOME}{campaign.pk}/edit/"
    assert "packets-0-total" not in ann.get(edit).content.decode().split("<template")[0]
    campaign.refresh_from_db()
    saved = desk.form(
        campaign.client_apps.get(), slug=campaign.slug, version=campaign.version,
        budget="120", starts_at=f"{local(campaign.starts_at, desk.ZONE):%Y-%m-%dT%H:%M}",
        ends_at=f"{local(campaign.ends_at + MINUTE, desk.ZONE):%Y-%m-%dT%H:%M}",
    )  # fmt: skip
    refused = ann.post(edit, saved)
    assert refused.status_code == 422 and "budget" in desk.refusals(refused)
    assert ann.post(edit, {**saved, "budget": "130"}).status_code == 302
    assert made.links.count() == 3
    assert ann.post(address, {"remove": str(made.pk)}).status_code == 302
    assert not Rain.objects.exists()


def test_a_refusal_stands_beside_its_field() -> None:
    campaign = stage.draft()
    ann = desk.at_desk()
    before = stage.everything()
    for instead, field, words in [
        ({"length_s": "700"}, "length_s", "over when the next"),
        ({"rounds": "9"}, "rounds", "within the campaign"),
        ({"packet-total": "900"}, "rounds", "is below the packets"),
        ({"packet-count": "5000"}, "packet-count", ""),
        ({"name_zh": ""}, "name_zh", "required"),
    ]:
        answer = ann.post(f"{desk.HOME}{campaign.pk}/rain/", typed(campaign, **instead))
        assert answer.status_code in (200, 422), instead
        said = desk.refusals(answer)
        assert words in said.get(field, said.get("packet-total", "")), (instead, said)
    assert stage.everything() == before and not Rain.objects.exists()


def test_a_round_is_moved_at_the_desk() -> None:
    campaign = stage.draft()
    made = rain(campaign)
    stage.launch(campaign)
    packet = rounds_of(made)[2]
    ann = desk.at_desk()
    address = f"{desk.HOME}{campaign.pk}/round/{packet.pk}/"
    assert (
        f"{local(packet.opens_at, desk.ZONE):%Y-%m-%dT%H:%M:%S}"
        in ann.get(address).content.decode()
    )
    later = local(packet.opens_at + dt.timedelta(seconds=95), desk.ZONE)

    assert desk.refusals(ann.post(address, {"opens_at": f"{later:%Y-%m-%dT%H:%M:%S}"})) == {
        "reason": "This field is required."
    }
    moved = ann.post(address, {"opens_at": f"{later:%Y-%m-%dT%H:%M:%S}", "reason": "late"})

    assert moved["Location"] == desk.page_of(campaign)
    row = Packet.objects.get(pk=packet.pk)
    assert row.opens_at == packet.opens_at + dt.timedelta(seconds=95)
    assert row.closes_at - row.opens_at == MINUTE
    assert desk.at_desk("support").get(address).status_code == 403
