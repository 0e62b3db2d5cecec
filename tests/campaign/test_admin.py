"""Campaigns and packets in the admin: what staff see, and what a move asks before it is made."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from campaign import services
from campaign.models import Campaign
from engine.lib import clock
from engine.models import AuditEvent, ClientApp
from packets import settlement
from tests import world
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/campaign/campaign/"
SCREENS = [
    "packet", "lane", "laneepoch", "claim", "claimstate", "account", "transfer", "gate",
    "participant",
]  # fmt: skip


def staff(name: str, *permissions: str) -> Client:
    """Somebody of the staff with these permissions (none named: all of them)."""
    user = User.objects.create_user(name, password="pw", is_staff=True)
    if permissions:
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    else:
        user.is_superuser = True
        user.save()
    client = Client(headers={"Accept-Language": "en"})
    client.force_login(user)
    return client


def ask(client: Client, move: str, *campaigns: Campaign) -> HttpResponse:
    """Choose the move in the list: the page that asks once more."""
    return client.post(  # type: ignore[return-value]
        LIST, {"action": f"move_{move}", "_selected_action": [c.pk for c in campaigns]}
    )


def confirm(client: Client, move: str, *campaigns: Campaign) -> str:
    """Press the button of that page; the messages of the list that follows."""
    versions = {f"version_{c.pk.hex}": c.version for c in campaigns}
    answer = client.post(
        LIST,
        {
            "action": f"move_{move}",
            "_selected_action": [c.pk for c in campaigns],
            "confirmed": "yes",
            **versions,
        },
        follow=True,
    )
    return " | ".join(str(message) for message in answer.context["messages"])


def test_the_list_shows_state_budget_and_spending() -> None:
    campaign = stage.live(budget_fen=50_000, slug="spring")
    packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
    won = world.claim(packet, world.person("alice", app=app))
    assert won.claim is not None

    page = staff("ann").get(LIST).content.decode()

    assert "spring" in page and "¥500.00" in page
    fen = won.claim.portion.amount_fen
    assert f"¥{fen // 100}.{fen % 100:02d}" in page


def test_a_move_asks_first_and_says_what_happens_to_the_money() -> None:
    campaign = stage.draft(budget_fen=50_000)
    stage.add_packet(campaign, 30_000)
    campaign.refresh_from_db()
    ann = staff("ann")

    page = ask(ann, "launch", campaign).content.decode()

    campaign.refresh_from_db()
    assert campaign.state == "draft"  # asking changed nothing
    assert "¥500.00" in page and "¥300.00" in page
    assert confirm(ann, "launch", campaign) == f"{campaign.slug}: live"
    campaign.refresh_from_db()
    assert campaign.state == "live"
    event = AuditEvent.objects.filter(action="campaign.launch").get()
    assert event.actor == "staff:ann"


def test_stopping_says_what_comes_back_and_what_stays() -> None:
    campaign = stage.live(budget_fen=50_000)
    packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
    won = world.claim(packet, world.person("alice", app=app))
    assert won.claim is not None
    fen = won.claim.portion.amount_fen

    page = ask(staff("ann"), "kill", campaign).content.decode()

    left = 10_000 - fen
    assert f"¥{fen // 100}.{fen % 100:02d}" in page and f"¥{left // 100}.{left % 100:02d}" in page


def test_the_whole_life_in_the_admin() -> None:
    campaign = stage.draft(budget_fen=50_000)
    packet = stage.add_packet(campaign)
    ann = staff("ann")
    said = []
    for move in ("launch", "pause", "resume", "end"):
        campaign.refresh_from_db()
        said.append(confirm(ann, move, campaign))
    for lane in packet.lanes.all():
        settlement.settle_lane(lane.pk)
    campaign.refresh_from_db()
    said.append(confirm(ann, "settle", campaign))

    assert [text.split(": ")[1] for text in said] == ["live", "paused", "live", "ended", "settled"]


def test_a_confirmation_of_something_older_is_refused() -> None:
    campaign = stage.live()
    ann = staff("ann")
    seen = Campaign.objects.get(pk=campaign.pk)
    services.campaign_pause(campaign_id=campaign.pk, actor="staff:bob")

    said = confirm(ann, "end", seen)

    campaign.refresh_from_db()
    assert campaign.state == "paused" and "changed meanwhile" in said


def test_a_move_that_does_not_exist_from_here_says_so() -> None:
    campaign = stage.live()
    said = confirm(staff("ann"), "launch", Campaign.objects.get(pk=campaign.pk))
    assert "is live; this needs it to be draft" in said


def test_who_may_stop_may_not_launch() -> None:
    draft, live = stage.draft(), stage.live()
    stage.add_packet(draft)
    author = staff("author", "view_campaign", "stop_campaign")

    assert "move_launch" not in author.get(LIST).content.decode()
    confirm(author, "launch", Campaign.objects.get(pk=draft.pk))
    confirm(author, "pause", Campaign.objects.get(pk=live.pk))

    draft.refresh_from_db()
    live.refresh_from_db()
    assert (draft.state, live.state) == ("draft", "paused")


def test_a_draft_is_made_through_the_service() -> None:
    app = ClientApp.objects.create(slug="demo", name="Demo")
    now = clock.now()
    form = {
        "slug": "spring",
        "name_zh": "春节",
        "name_en": "",
        "rules_zh": "",
        "rules_en": "",
        "budget_fen": "100000",
        "starts_at_0": now.date().isoformat(),
        "starts_at_1": "00:00:00",
        "ends_at_0": (now + dt.timedelta(days=2)).date().isoformat(),
        "ends_at_1": "00:00:00",
        "timezone": "Asia/Shanghai",
        "client_apps": [app.pk],
    }
    ann = staff("ann")

    backwards = ann.post(f"{LIST}add/", {**form, "ends_at_0": "2020-01-01"})
    answer = ann.post(f"{LIST}add/", form, follow=True)

    assert "would end before it starts" in backwards.content.decode()
    assert answer.status_code == 200
    campaign = Campaign.objects.get()
    assert (campaign.slug, campaign.state, campaign.budget_fen) == ("spring", "draft", 100_000)
    assert list(campaign.client_apps.all()) == [app]
    assert campaign.created_by is not None and campaign.created_by.username == "ann"
    assert stage.audited(campaign) == ["campaign.create"]


def test_what_is_made_is_shown_and_not_edited() -> None:
    campaign = stage.live()
    ann = staff("ann")
    page = f"{LIST}{campaign.pk}/change/"

    shown = ann.get(page)
    ann.post(page, {"budget_fen": "1", "state": "draft", "slug": "x"})

    assert shown.status_code == 200 and b'name="budget_fen"' not in shown.content
    again = Campaign.objects.get(pk=campaign.pk)
    assert (again.budget_fen, again.state, again.slug) == (100_000, "live", campaign.slug)
    assert ann.get(f"{LIST}{campaign.pk}/delete/").status_code == 403


@pytest.mark.parametrize("screen", SCREENS)
def test_the_data_plane_is_read_only_and_costs_the_same_for_many(screen: str) -> None:
    def fill(people: int) -> None:
        campaign = stage.live()
        packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
        for number in range(people):
            world.claim(packet, world.person(f"user{number}", app=app))
        settlement.settle_lane(packet.lanes.get().pk)

    ann = staff("ann")
    fill(2)
    address = reverse(f"admin:packets_{screen}_changelist")
    ann.get(address)
    with CaptureQueriesContext(connection) as few:
        page = ann.get(address)
    fill(9)
    with CaptureQueriesContext(connection) as many:
        ann.get(address)

    assert page.status_code == 200
    assert len(many) == len(few)
    assert ann.get(f"{address}add/").status_code == 403
    (row, *_) = page.context["cl"].result_list
    detail = f"{address}{row.pk}/change/" if screen != "participant" else ""
    if detail:
        shown = ann.get(detail)
        assert shown.status_code == 200
        assert b"_save" not in shown.content
        assert ann.post(detail, {}).status_code == 403


def test_no_screen_shows_what_would_foretell_a_portion() -> None:
    packet = stage.first_packet(stage.live())

    page = staff("ann").get(f"/admin/packets/packet/{packet.pk}/change/").content.decode()

    assert packet.commitment in page
    for secret in (packet.seed_encrypted, packet.beacon, bytes(packet.home_key).hex()):
        assert secret not in page
