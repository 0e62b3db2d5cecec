"""One page makes a campaign with its packets: what is typed, what is refused, where, and how."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from campaign import services
from campaign.models import Campaign, TargetUpload
from engine.lib.adminkit import parse_yuan
from packets.models import Packet, PacketTarget
from tests.admin import desk
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)
ADD = f"{desk.HOME}add/"


def packet_of(campaign: Campaign) -> Packet:
    return Packet.objects.get(campaign_link__campaign=campaign)


def test_yuan_typed_by_people_become_fen_exactly() -> None:
    app = stage.make_app()
    packet = {"total": "¥1,234.5", "count": "7", "least": "0.10", "most": "９００元"}

    answer = desk.at_desk().post(ADD, desk.form(app, packet, budget="123456.78"))

    campaign = Campaign.objects.get()
    assert answer.status_code == 302 and answer["Location"] == desk.page_of(campaign)
    assert (campaign.state, campaign.budget_fen) == ("draft", 12_345_678)
    made = packet_of(campaign)
    assert (made.total_fen, made.count, made.min_fen, made.max_fen) == (123_450, 7, 10, 90_000)
    assert campaign.created_by is not None and campaign.created_by.username == "operations"


@pytest.mark.parametrize(
    ("text", "fen"), [("0.01", 1), ("1.1", 110), ("1，000", 100_000), (" 8.88 ", 888)]
)
def test_what_yuan_look_like(text: str, fen: int) -> None:
    assert parse_yuan(text) == fen


def test_times_are_of_the_campaigns_zone() -> None:
    app = stage.make_app()

    desk.at_desk().post(
        ADD,
        desk.form(
            app, starts_at="2030-02-06T20:00", ends_at="2030-02-07T20:00", timezone="Asia/Tokyo"
        ),
    )

    campaign = Campaign.objects.get()
    assert campaign.starts_at == dt.datetime(2030, 2, 6, 11, 0, tzinfo=dt.UTC)
    page = desk.at_desk().get(desk.page_of(campaign)).content.decode()
    assert "2030-02-06 20:00 Asia/Tokyo (UTC+9)" in page


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"budget": "50"}, {}, "budget", "is below the packets"),
    ({"budget": "1.001"}, {}, "budget", "At most two digits"),
    ({"budget": "-5"}, {}, "budget", "Type an amount in yuan"),
    ({"ends_at": "2020-01-01T00:00"}, {}, "ends_at", "end before it starts"),
    ({"slug": "Not A Slug"}, {}, "slug", "Small letters"),
    ({"client_apps": []}, {}, "client_apps", "at least one app"),
    (
        {"timezone": "America/New_York", "starts_at": "2027-03-14T02:30",
         "ends_at": "2027-03-15T00:00"},
        {}, "starts_at", "clocks are put forward",
    ),
    ({}, {"least": "50"}, "packets-0-least", "need ¥500.00"),
    ({}, {"most": "5"}, "packets-0-most", "take ¥50.00"),
    ({}, {"count": "0"}, "packets-0-count", "greater than or equal to 1"),
    ({}, {"opens_at": "2020-01-01T00:00"}, "packets-0-opens_at", "within the campaign"),
    ({}, {"strategy": "tiers", "tiers": ""}, "packets-0-tiers", "at least one tier"),
    ({}, {"strategy": "tiers", "tiers": "many"}, "packets-0-tiers", "Prize 1"),
    (
        {"budget": "200000"},
        {"strategy": "tiers", "total": "150000", "count": "10", "tiers": "50000.01 x 1"},
        "packets-0-tiers", "legal ceiling of ¥50,000.00",
    ),
    ({"budget": "900000"}, {"total": "900000"}, "packets-0-most", "Set the largest portion"),
    ({"then": "submit", "rules_zh": ""}, {}, "rules_zh", "are missing"),
    (
        {"then": "submit", "odds_zh": ""},
        {"strategy": "tiers", "tiers": "8.88 x 2", "most": "90"},
        "odds_zh", "odds must be written down",
    ),
    ({"then": "submit"}, {"targeted": "on"}, "packets-0-target_file", "needs a list of people"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "packet", "where", "words"), REFUSED)
def test_a_refusal_stands_beside_its_field_and_changes_nothing(
    fields: dict[str, Any], packet: dict[str, Any], where: str, words: str
) -> None:
    app = stage.make_app()
    ann = desk.at_desk()
    before = stage.everything()

    answer = ann.post(ADD, desk.form(app, packet, **fields))

    assert answer.status_code == 422
    said = desk.refusals(answer)
    assert words in said.get(where, ""), said
    assert stage.everything() == before


def test_refusals_are_in_the_language_of_the_screen() -> None:
    answer = desk.at_desk(lang="zh-hans").post(ADD, desk.form(stage.make_app(), budget="50"))

    said = desk.refusals(answer)["budget"]
    assert "¥50.00" in said and "预算" in said


def test_save_and_submit_is_one_press() -> None:
    answer = desk.at_desk().post(ADD, desk.form(stage.make_app(), then="submit"))

    campaign = Campaign.objects.get()
    assert answer.status_code == 302 and campaign.state == "review"
    assert stage.audited(campaign) == ["campaign.create", "campaign.packet_add", "campaign.submit"]


def test_a_template_fills_the_form_and_one_app_is_chosen_already() -> None:
    app = stage.make_app()

    page = desk.at_desk().get(f"{ADD}?template=pool-with-prizes")

    form, packets = page.context["form"], page.context["packets"]
    assert form.initial["budget"] == 20_000_000 and form.initial["client_apps"] == [app.pk]
    assert packets[0].initial["tiers"][0] == (88_800, 10)
    assert "888.00 x 10" in page.content.decode()


def edited(campaign: Campaign, **fields: Any) -> dict[str, Any]:
    """The edit page's form as it is shown, with something typed over."""
    page = desk.at_desk().get(f"{desk.HOME}{campaign.pk}/edit/")
    found: dict[str, Any] = {
        "packets-TOTAL_FORMS": len(page.context["packets"].forms),
        "packets-INITIAL_FORMS": len(page.context["packets"].forms),
        "then": "save",
    }
    for shown in (page.context["form"], *page.context["packets"].forms):
        for bound in shown:
            value = bound.value()
            if value not in (None, "", False):
                found[bound.html_name] = value
    return {**found, **fields}


def test_an_edit_of_what_is_approved_makes_it_a_draft_and_keeps_untouched_packets() -> None:
    campaign = stage.scheduled(budget_fen=100_000)
    packet = packet_of(campaign)
    seed = packet.commitment

    answer = desk.at_desk().post(
        f"{desk.HOME}{campaign.pk}/edit/", edited(campaign, name_zh="元宵")
    )

    assert answer.status_code == 302, desk.refusals(answer)
    campaign.refresh_from_db()
    assert (campaign.state, campaign.name_zh) == ("draft", "元宵")
    assert campaign.approvals.get().revoked_at is not None
    packet.refresh_from_db()
    assert packet.commitment == seed


def test_packets_change_come_and_go_with_the_budget_in_one_save() -> None:
    campaign = stage.draft(budget_fen=30_000)
    stage.add_packet(campaign, 10_000)
    stage.add_packet(campaign, 20_000)
    data = edited(campaign, budget="250.00")
    data.update({"packets-0-total": "90.00", "packets-1-DELETE": "on"})
    data.update({"packets-TOTAL_FORMS": "3", "packets-2-total": "160", "packets-2-count": "16"})
    data.update({"packets-2-strategy": "fixed", "packets-2-evenness": "2"})

    answer = desk.at_desk().post(f"{desk.HOME}{campaign.pk}/edit/", data)

    assert answer.status_code == 302, desk.refusals(answer)
    campaign.refresh_from_db()
    totals = list(
        Packet.objects.filter(campaign_link__campaign=campaign)
        .order_by("campaign_link__order")
        .values_list("total_fen", "strategy")
    )
    assert campaign.budget_fen == 25_000
    assert totals == [(9_000, "lucky"), (16_000, "fixed")]


def test_a_form_of_something_older_is_refused() -> None:
    campaign = stage.draft()
    stage.add_packet(campaign)
    data = edited(campaign, name_zh="元宵")
    services.campaign_update(campaign_id=campaign.pk, actor="staff:bob", name_en="Other")
    before = stage.everything()

    answer = desk.at_desk().post(f"{desk.HOME}{campaign.pk}/edit/", data)

    assert answer.status_code == 422 and "changed meanwhile" in answer.content.decode()
    assert stage.everything() == before


def test_a_running_campaign_has_no_edit_page() -> None:
    campaign = stage.live()

    answer = desk.at_desk().get(f"{desk.HOME}{campaign.pk}/edit/")

    assert (answer.status_code, answer["Location"]) == (302, desk.page_of(campaign))


def test_a_list_of_people_comes_with_the_form_and_shows_its_bad_rows() -> None:
    app = stage.make_app()
    listed = SimpleUploadedFile("people.csv", b"user_id\nalice\nbob\n\xff\xfe\nalice\n")
    packet = {"targeted": "on", "target_file": listed}
    ann = desk.at_desk()

    ann.post(ADD, desk.form(app, packet, then="submit"))
    campaign = Campaign.objects.get()
    upload = TargetUpload.objects.get()
    waiting = ann.get(f"{desk.HOME}list/{upload.pk}/?as=json").json()
    services.target_uploads_run_due(for_s=5)
    done = ann.get(f"{desk.HOME}list/{upload.pk}/?as=json").json()
    page = ann.get(f"{desk.HOME}list/{upload.pk}/").content.decode()

    assert campaign.state == "draft"  # it can be handed in when the list is read
    assert not waiting["finished"] and done["finished"]
    assert (done["added"], done["repeated"], done["refused"]) == ("2", "1", "1")
    assert PacketTarget.objects.count() == 2
    assert "not UTF-8" in page


def test_who_may_not_make_campaigns_gets_no_page_and_no_preview() -> None:
    app = stage.make_app()
    bob = desk.at_desk("approver", "bob")
    before = stage.everything()

    codes = [
        bob.get(ADD).status_code,
        bob.get(f"{desk.HOME}new/").status_code,
        bob.post(ADD, desk.form(app)).status_code,
        bob.post(f"{desk.HOME}preview/", desk.form(app)).status_code,
    ]

    assert codes == [403] * 4
    assert stage.everything() == before


class TestPreview:
    def ask(self, *packets: dict[str, Any], **fields: Any) -> dict[str, Any]:
        answer = desk.at_desk().post(
            f"{desk.HOME}preview/", desk.form(stage.make_app(), *packets, **fields)
        )
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    def test_it_shows_what_the_real_splitting_does_and_writes_nothing(self) -> None:
        before = stage.everything()
        seen = self.ask({"strategy": "fixed", "total": "100", "count": "3"})

        (packet,) = seen["packets"]
        assert packet["ok"] and ["Average", "¥33.33"] in packet["numbers"]
        assert sorted(packet["sample"]) == [["¥33.33", 0], ["¥33.33", 0], ["¥33.34", 0]]
        assert seen["budget"]["text"] == "¥100.00 / ¥1,000.00"
        after = {name: rows for name, rows in stage.everything().items() if name != "audit"}
        assert all(before[name] == rows for name, rows in after.items() if name == "campaigns")

    def test_it_says_when_the_evenness_is_raised(self) -> None:
        (packet,) = self.ask({"total": "100", "count": "100", "most": "2", "evenness": "1"})[
            "packets"
        ]
        assert "raised from 1 to" in packet["raised"]

    def test_refusals_come_by_field(self) -> None:
        seen = self.ask({"most": "5"}, budget="50")
        assert "take ¥50.00" in seen["errors"]["packets-0-most"][0]
        assert "is below" in seen["errors"]["budget"][0]
        assert seen["packets"] == [{"ok": False}]

    def test_a_million_portions_are_sampled_quickly(self) -> None:
        (packet,) = self.ask(
            {"total": "2000000", "count": "1000000", "most": "100"}, budget="2000000"
        )["packets"]
        assert packet["count"] == 1_000_000 and "4,000" in packet["basis"]
