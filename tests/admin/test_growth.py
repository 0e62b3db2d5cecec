"""The page on which staff say how a campaign spreads."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from campaign import services
from campaign.models import WAYS, Campaign, CampaignGrowth
from engine.models import AuditEvent
from packets.models import Packet
from tests.admin import desk
from tests.admin.desk import HOME
from tests.campaign import stage

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False


def address(campaign: Campaign) -> str:
    return f"{HOME}{campaign.pk}/growth/"


def words(answer: Any) -> str:
    return html.unescape(re.sub(r"\s+", " ", answer.content.decode()))


def drafted() -> Campaign:
    campaign = stage.draft()
    stage.add_packet(campaign)
    return stage.ready(campaign)


def growth() -> CampaignGrowth:
    return CampaignGrowth.objects.select_related("inviter_packet", "invitee_packet").get()


def test_ann_types_amounts_and_the_packets_are_made() -> None:
    campaign, client = drafted(), desk.at_desk()
    shown = client.get(address(campaign))
    assert shown.status_code == 200
    assert "Nobody can share this campaign so far." in words(shown)
    typed = {"make-inviter": "1.00", "make-invitee": "0.5", "make-friends": "20", "then": "make"}

    made = client.post(
        address(campaign),
        desk.growth_form(**typed, destination="https://app.example/go", depth="2"),
    )

    assert made.status_code == 302 and made["Location"] == address(campaign)
    known = growth()
    assert known.inviter_packet is not None and known.invitee_packet is not None
    assert (known.inviter_packet.count, known.inviter_packet.total_fen) == (40, 4_000)
    assert (known.invitee_packet.count, known.invitee_packet.total_fen) == (20, 1_000)
    assert known.destination_hosts == ["app.example"] and known.new_only is False
    said = words(client.get(address(campaign)))
    assert "brings ¥1.00 to the inviter and ¥0.50 to the friend." in said
    assert "All rewards together are at most ¥50.00." in said
    assert "make sure that a lawyer has seen it" in said
    assert "brings ¥1.00 to the inviter" in words(client.get(f"{HOME}{campaign.pk}/change/"))
    # Other amounts change the packets that are there: none is left over.
    again = {**typed, "make-inviter": "2", "inviter_packet": known.inviter_packet_id,
             "invitee_packet": known.invitee_packet_id}  # fmt: skip
    client.post(address(campaign), desk.growth_form(**again, depth="1"))
    assert growth().inviter_packet_id == known.inviter_packet_id
    assert Packet.objects.get(pk=known.inviter_packet_id).total_fen == 4_000
    assert campaign.links.count() == 3


def test_rewards_that_the_budget_cannot_hold_are_refused_at_their_field() -> None:
    campaign, client = drafted(), desk.at_desk()
    typed = {"make-inviter": "900", "make-invitee": "0", "make-friends": "20", "then": "make"}
    answer = client.post(address(campaign), desk.growth_form(**typed))
    assert answer.status_code == 422
    assert "is below the packets' sum" in words(answer)
    assert not CampaignGrowth.objects.exists() and campaign.links.count() == 1


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"depth": "3"}, "Select a valid choice"),
        ({"window_days": "91"}, "less than or equal to 90"),
        ({"qualifying": "event"}, "Name the event"),
        ({"destination": "http://app.example/"}, "whole https address"),
        ({"destination": "https://a.example/", "destination_hosts": "b.example"}, "isn't among"),
        ({"ways": ["wechat/pigeon"]}, "Select a valid choice"),
        ({"version": "99"}, "changed meanwhile"),
    ],
)
def test_what_is_refused_stands_at_its_field_and_nothing_is_saved(
    typed: dict[str, Any], said: str
) -> None:
    campaign = drafted()
    answer = desk.at_desk().post(address(campaign), desk.growth_form(**typed))
    assert answer.status_code == 422 and said in words(answer)
    assert not CampaignGrowth.objects.exists()


def test_only_what_is_typed_differently_is_changed_and_channels_are_ticked() -> None:
    campaign, client = drafted(), desk.at_desk()
    services.growth_edit(
        campaign_id=campaign.pk, actor="x", window_s=5_400, share_cooldown_s=90, new_only=False
    )
    boxes = re.findall(
        r'name="ways" value="([a-z/]+)"[^>]*checked', words(client.get(address(campaign)))
    )
    assert boxes == list(WAYS)

    same = desk.growth_form(window_days="1", cooldown_minutes="2")
    client.post(address(campaign), same)
    assert (growth().window_s, growth().share_cooldown_s, growth().ways) == (5_400, 90, None)
    client.post(address(campaign), {**same, "ways": ["wechat/link", "wechat/qr"]})
    assert growth().ways == ["wechat/link", "wechat/qr"] and growth().window_s == 5_400


def test_after_the_launch_it_is_loosened_with_a_reason() -> None:
    campaign, client = drafted(), desk.at_desk()
    services.growth_edit(campaign_id=campaign.pk, actor="x", new_only=False)
    stage.launch(campaign)
    shown = client.get(address(campaign))
    fixed = {name for name, field in shown.context["form"].fields.items() if field.disabled}
    assert {"attribution", "depth", "title_zh", "ways"} <= fixed
    assert not fixed & {"is_on", "inviter_cap", "window_days", "inviter_packet", "reason"}
    assert 'value="make"' not in words(shown)

    assert client.post(address(campaign), desk.growth_form(inviter_cap="30")).status_code == 422
    worse = client.post(address(campaign), desk.growth_form(inviter_cap="3", reason="why"))
    assert worse.status_code == 422 and "in favour of those who take part" in words(worse)
    better = desk.growth_form(inviter_cap="30", depth="2", attribution="first", reason="a party")
    assert client.post(address(campaign), better).status_code == 302
    assert (growth().inviter_cap, growth().depth, growth().attribution) == (30, 1, "last")
    event = AuditEvent.objects.filter(action="campaign.growth").latest("id")
    assert (event.reason, event.after) == ("a party", {"inviter_cap": 30})


def test_rewards_go_on_from_a_packet_that_was_topped_up() -> None:
    campaign, client = drafted(), desk.at_desk()
    services.growth_reward_packets_make(
        campaign_id=campaign.pk, inviter_fen=100, invitee_fen=0, friends=2, actor="x"
    )
    stage.launch(campaign)
    packet = {"strategy": "fixed", "total": "10", "count": "10", "evenness": "2", "name": "more"}
    asked = client.post(
        f"{HOME}{campaign.pk}/top-up/",
        {"extra": "10", "reason": "r", "typed": campaign.slug, "with_packet": "on",
         **{f"packet-{name}": value for name, value in packet.items()},
         "packet-needs_ticket": "on"},
    )  # fmt: skip
    assert asked.status_code == 302
    services.top_up_approve(top_up_id=campaign.top_ups.get().pk, by=stage.member("approver", "bob"))
    made = Packet.objects.get(name="more")

    page = client.get(address(campaign))
    assert "more: ¥1.00 × 10" in words(page)
    typed = desk.growth_form(inviter_packet=made.pk, reason="used up")
    assert client.post(address(campaign), typed).status_code == 302
    assert growth().inviter_packet == made


def test_a_running_campaign_that_does_not_spread_says_so() -> None:
    campaign, client = stage.live(), desk.at_desk()
    page = words(client.get(address(campaign)))
    assert "A campaign that has started can't begin to spread." in page
    assert 'value="save"' not in page
    answer = client.post(address(campaign), desk.growth_form(reason="why"))
    assert answer.status_code == 422 and not CampaignGrowth.objects.exists()


def test_an_ended_campaign_has_no_such_page() -> None:
    campaign = stage.live()
    services.campaign_end(campaign_id=campaign.pk, actor="x")
    assert desk.at_desk().get(address(campaign)).status_code == 302


def test_a_copy_in_the_builder_spreads_as_its_model() -> None:
    campaign, client = drafted(), desk.at_desk()
    services.growth_reward_packets_make(
        campaign_id=campaign.pk, inviter_fen=100, invitee_fen=50, friends=20, actor="x"
    )
    new = client.get(f"{HOME}add/?copy={campaign.pk.hex}")
    assert "People can share this campaign" in words(new)
    packets = [
        {key: value for key, value in form.initial.items() if value is not None and key != "tiers"}
        for form in new.context["packets"]
    ]
    for one in packets:
        one["total"] = f"{one['total'] / 100:.2f}"
    app = campaign.client_apps.get()
    saved = client.post(
        f"{HOME}add/?copy={campaign.pk.hex}",
        desk.form(app, packets[0], {"DELETE": "on", **packets[1]}, packets[2]),
    )
    assert saved.status_code == 302
    copy = CampaignGrowth.objects.exclude(campaign=campaign).get()
    assert copy.inviter_packet is None and copy.invitee_packet is not None
    assert copy.invitee_packet_id != growth_of(campaign).invitee_packet_id


def test_a_reward_packet_that_is_removed_in_the_builder_is_refused_above_the_form() -> None:
    campaign, client = drafted(), desk.at_desk()
    services.growth_reward_packets_make(
        campaign_id=campaign.pk, inviter_fen=100, invitee_fen=0, friends=20, actor="x"
    )
    address = f"{HOME}{campaign.pk}/edit/"
    shown = client.get(address)
    packets = [
        {"packet": form.initial["packet"], "total": f"{form.initial['total'] / 100:.2f}",
         "count": form.initial["count"], "strategy": form.initial["strategy"]}
        for form in shown.context["packets"]
    ]  # fmt: skip
    typed = desk.form(
        campaign.client_apps.get(), packets[0], {**packets[1], "DELETE": "on"}, slug=campaign.slug
    )
    campaign.refresh_from_db()
    answer = client.post(
        address, {**typed, "packets-INITIAL_FORMS": "2", "version": campaign.version}
    )
    assert answer.status_code == 422
    assert "Rewards are paid from the packet" in words(answer).split("data-packets")[0]
    assert campaign.links.count() == 2


def growth_of(campaign: Campaign) -> CampaignGrowth:
    return CampaignGrowth.objects.get(campaign=campaign)
