"""Lists of big tables, the live board and the export: bounded, by key, and the same for many."""

from __future__ import annotations

import datetime as dt
import time

import psycopg
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from campaign import board, services
from campaign.models import Campaign
from engine.lib import clock, counters
from engine.lib.spreadsheet import cell
from engine.models import AuditEvent
from packets import settlement
from packets.closing import packet_close
from packets.models import Claim, Ticket
from packets.tickets import ticket_issue
from tests import world
from tests.admin import desk
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)
SCREENS = [
    "packets_packet", "packets_lane", "packets_laneepoch", "packets_claim", "packets_claimstate",
    "packets_account", "packets_transfer", "packets_gate", "packets_participant", "packets_ticket",
    "engine_auditevent", "campaign_campaign",
]  # fmt: skip


def fill(people: int, *names: str) -> Campaign:
    campaign = stage.live(budget_fen=1_000_000)
    packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
    for number in range(people):
        name = names[number] if number < len(names) else f"user{number}"
        who = world.person(name, app=app)
        world.claim(packet, who)
        Ticket.objects.create(
            packet=packet, participant=who.participant, serial=1, client_app_id=app, key=name,
            reason="mission done",
        )  # fmt: skip
    return campaign


@pytest.mark.parametrize("screen", SCREENS)
def test_a_list_costs_the_same_for_many_rows_and_counts_nothing(screen: str) -> None:
    settlement.settle_lane(stage.first_packet(fill(2)).lanes.get().pk)
    ann = desk.at_desk()
    address = reverse(f"admin:{screen}_changelist")
    ann.get(address)
    with CaptureQueriesContext(connection) as few:
        page = ann.get(address)
    settlement.settle_lane(stage.first_packet(fill(9)).lanes.get().pk)
    with CaptureQueriesContext(connection) as many:
        ann.get(address)

    assert page.status_code == 200
    assert len(many) <= len(few)
    # A page says nothing of a total, so nothing need be counted.
    assert not [q["sql"] for q in many if 'COUNT(*) AS "__count"' in q["sql"]]
    assert "9999999999" not in page.content.decode()


@pytest.mark.parametrize("screen", [s for s in SCREENS if not s.startswith("campaign")])
def test_the_books_are_read_only(screen: str) -> None:
    settlement.settle_lane(stage.first_packet(fill(1)).lanes.get().pk)
    ann = desk.at_desk()
    address = reverse(f"admin:{screen}_changelist")

    assert ann.get(f"{address}add/").status_code == 403
    if screen == "packets_participant":  # a row is all there is of a person: no page behind it
        return
    for row in ann.get(address).context["cl"].result_list:
        detail = reverse(f"admin:{screen}_change", args=[row.pk])
        shown = ann.get(detail)
        assert shown.status_code == 200 and b'name="_save"' not in shown.content
        assert ann.post(detail, {}).status_code == 403
        assert ann.get(reverse(f"admin:{screen}_delete", args=[row.pk])).status_code == 403


def test_claims_are_found_by_user_claim_and_packet() -> None:
    campaign = fill(3, "alice", "bob", "carol")
    packet = stage.first_packet(campaign)
    other = fill(1, "dave")
    address, ann = reverse("admin:packets_claim_changelist"), desk.at_desk()

    def found(text: str) -> int:
        return len(ann.get(address, {"q": text}).context["cl"].result_list)

    claim = Claim.objects.filter(packet=packet).first()
    assert claim is not None
    assert [found("alice"), found(claim.pk.hex), found(packet.public_id)] == [1, 1, 3]
    assert found("nobody") == 0 and found("0" * 32) == 0
    assert found(stage.first_packet(other).public_id) == 1


def test_tickets_are_found_and_say_whether_they_are_used() -> None:
    campaign = stage.draft()
    packet = stage.add_packet(campaign, needs_ticket=True)
    stage.launch(campaign)
    app = campaign.client_apps.get().pk
    texts = [
        ticket_issue(
            packet_id=packet.pk, client_app_id=app, subject=name, key=f"m-{name}", reason="won"
        )
        for name in ("alice", "bob")
    ]
    world.claim(packet, world.person("alice", app), ticket=texts[0])
    address, ann = reverse("admin:packets_ticket_changelist"), desk.at_desk()

    def found(text: str) -> dict[str, bool]:
        rows = ann.get(address, {"q": text}).context["cl"].result_list
        return {row.key: row.is_used for row in rows}

    both = {"m-alice": True, "m-bob": False}
    assert found("") == found(packet.public_id) == both
    assert found("alice") == found("m-alice") == {"m-alice": True}
    assert found("nobody") == {}
    page = ann.get(desk.page_of(campaign)).content.decode()
    assert "who hold a ticket (2 issued)" in page
    assert not any(text in ann.get(address).content.decode() for text in texts)


def test_dates_are_read_in_the_staffs_zone() -> None:
    fill(1)
    address, ann = reverse("admin:packets_claim_changelist"), desk.at_desk()
    now = clock.now().astimezone(desk.ZONE)

    def found(**dates: str) -> int:
        return len(ann.get(address, dates).context["cl"].result_list)

    hour_ago, in_an_hour = now - dt.timedelta(hours=1), now + dt.timedelta(hours=1)
    assert found(
        committed_at_from_0=f"{hour_ago:%Y-%m-%d}", committed_at_from_1=f"{hour_ago:%H:%M}"
    )
    assert not found(
        committed_at_from_0=f"{in_an_hour:%Y-%m-%d}", committed_at_from_1=f"{in_an_hour:%H:%M}"
    )


def test_no_screen_shows_what_would_foretell_a_portion() -> None:
    packet = stage.first_packet(stage.live())

    page = desk.at_desk().get(f"/admin/packets/packet/{packet.pk}/change/").content.decode()

    assert packet.commitment in page
    for secret in (packet.seed_encrypted, packet.beacon, bytes(packet.home_key).hex()):
        assert secret not in page


# --- the board ------------------------------------------------------------------------------------


def test_the_board_counts_wins_from_claims_and_refusals_from_the_doors() -> None:
    campaign = fill(3)
    packet = stage.first_packet(campaign)
    counters.flush()
    for _ in range(2):
        counters.count(f"{packet.id.hex}:sold_out")
    counters.flush()
    time.sleep(board.SETTLING_S + 1)

    seen = desk.at_desk().get(f"{desk.HOME}{campaign.pk}/board-data/").json()

    lines = {line["label"]: sum(line["values"]) for line in seen["speed"]["lines"]}
    assert lines == {"won": 3, "sold out": 2}
    assert seen["state"] == "live" and seen["burn"]["bound"] == 10_000
    overall = desk.at_desk().get(f"{desk.HOME}board-data/").json()
    assert [row["slug"] for row in overall["campaigns"]] == [campaign.slug]


def test_a_closed_packet_is_bound_no_more_but_of_an_ended_campaign_all_is_shown() -> None:
    campaign = fill(3)
    assert board.standings(campaign.pk)[0].bound_fen == 10_000
    packet_close(packet_id=stage.first_packet(campaign).id, actor="staff:ann")
    (running,) = board.standings(campaign.pk)
    assert running.bound_fen == running.claimed_fen < 10_000 and running.percent == 100
    services.campaign_end(campaign_id=campaign.pk, actor="staff:ann", reason="over")
    (over,) = board.standings(campaign.pk)
    assert over.bound_fen == 10_000 and over.percent == running.claimed_fen * 100 // 10_000


def test_samples_make_the_line_and_the_forecast() -> None:
    campaign = fill(0)
    assert board.samples_take() == 1 and board.samples_take() == 0
    campaign.samples.update(at=clock.now() - dt.timedelta(minutes=5))
    packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
    for number in range(5):
        world.claim(packet, world.person(f"user{number}", app=app))

    (standing,) = board.standings(campaign.pk)
    forecast = board.forecast(Campaign.objects.get(pk=campaign.pk), standing)

    assert forecast.fen_per_minute == standing.claimed_fen * 60 // 300
    assert forecast.empty_at is not None
    assert board.burn(campaign, standing)[-1][1] == standing.claimed_fen


def test_counting_never_fails_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    from redis import Redis

    counters.count("x:won")
    assert counters.flush(Redis(host="127.0.0.1", port=1)) == 0  # lost, and nobody hears of it
    assert counters.read(2, Redis(host="127.0.0.1", port=1)) == {}


# --- the export -----------------------------------------------------------------------------------


def test_the_export_opens_in_a_spreadsheet_and_runs_nothing() -> None:
    campaign = fill(3, "=cmd()", "王伟", "bob")
    ann = desk.at_desk()

    answer = ann.get(f"{desk.HOME}{campaign.pk}/export/csv/?token=ab")
    body = b"".join(answer.streaming_content)  # type: ignore[attr-defined]
    progress = ann.get(f"{desk.HOME}{campaign.pk}/export/progress/?token=ab").json()

    assert body.startswith(b"\xef\xbb\xbfclaim,packet,user,serial,amount_fen")
    lines = body.decode("utf-8-sig").splitlines()
    users = [line.split(",")[2] for line in lines[1:]]
    assert sorted(users) == ["'=cmd()", "bob", "王伟"]
    amounts = [int(line.split(",")[4]) for line in lines[1:]]
    assert sum(amounts) == sum(Claim.objects.values_list("amount_fen", flat=True))
    assert progress == {"percent": 100, "text": "3 / 3", "finished": True}
    assert AuditEvent.objects.get(action="campaign.export").actor == "staff:operations"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_cells_that_look_like_formulas(start: str) -> None:
    assert cell(f"{start}1") == f"'{start}1" and cell(f"1{start}") == f"1{start}"


# --- many rows ------------------------------------------------------------------------------------

_CLAIMS = """
    INSERT INTO packets_claim (id, packet_id, lane_id, participant, serial, epoch, index,
                               amount_fen, tier, position, committed_at)
    SELECT gen_random_uuid(), %(packet)s, %(lane)s,
           decode(md5(n::text), 'hex'), 0, 1, n, 100, 0, n, now() - n * interval '50 ms'
      FROM generate_series(1, %(rows)s) AS n
"""
_CAMPAIGNS = """
    WITH accounts AS (
        INSERT INTO packets_account (kind, owner, currency, debits_fen, credits_fen, created_at)
        SELECT 'campaign', 'many-' || n, 'CNY', 0, 0, now() FROM generate_series(1, %(rows)s) AS n
        RETURNING id, owner),
    gates AS (
        INSERT INTO packets_gate (key, state, reason, changed_at)
        SELECT 'many-' || n, 'paused', '', now() FROM generate_series(1, %(rows)s) AS n
        RETURNING id, key)
    INSERT INTO campaign_campaign (id, slug, name_zh, name_en, rules_zh, rules_en, odds_zh, odds_en,
        state, budget_fen, currency, account_id, gate_id, starts_at, ends_at, timezone, version,
        created_at, changed_at)
    SELECT gen_random_uuid(), accounts.owner, '春节', '', '', '', '', '', 'draft', 100, 'CNY',
           accounts.id, gates.id, now(), now() + interval '1 day', 'Asia/Shanghai', 1, now(), now()
      FROM accounts JOIN gates ON gates.key = accounts.owner
"""
LIMIT_S = 1.0


def many(dsn: str, claims: int, campaigns: int) -> Campaign:
    """Rows as they would be after a long night, written past the triggers."""
    campaign = stage.live()
    packet = stage.first_packet(campaign)
    lane = packet.lanes.get()
    with psycopg.connect(dsn) as link:
        link.execute("SET session_replication_role = replica")
        link.execute(_CLAIMS, {"packet": packet.pk, "lane": lane.pk, "rows": claims})
        link.execute(
            "UPDATE packets_lane SET count = %s, claimed_count = %s, total_fen = %s,"
            " claimed_fen = %s WHERE id = %s",
            [claims + 1, claims, claims * 100 + 100, claims * 100, lane.pk],
        )
        link.execute(_CAMPAIGNS, {"rows": campaigns})
        link.commit()
        link.autocommit = True
        link.execute("ANALYZE packets_claim")
        link.execute("ANALYZE campaign_campaign")
    return campaign


def quick(client: Client, campaign: Campaign) -> None:
    packet = stage.first_packet(campaign)
    claims = reverse("admin:packets_claim_changelist")
    for address in (
        claims, f"{claims}?p=100", f"{claims}?q={packet.public_id}", f"{claims}?q=alice",
        desk.HOME, f"{desk.HOME}?q=many-7", f"{desk.HOME}?state__exact=draft",
        f"{desk.HOME}board-data/", f"{desk.HOME}{campaign.pk}/board-data/", desk.page_of(campaign),
    ):  # fmt: skip
        started = time.perf_counter()
        answer = client.get(address)
        took = time.perf_counter() - started
        assert answer.status_code == 200, address
        assert took < LIMIT_S, f"{address} took {took:.2f} s"


def test_lists_stay_quick_with_some_rows(superuser_dsn: str) -> None:
    quick(desk.at_desk(), many(superuser_dsn, 20_000, 500))


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_lists_stay_quick_and_the_export_small_with_a_million_claims(superuser_dsn: str) -> None:
    import tracemalloc

    campaign = many(superuser_dsn, 1_000_000, 10_000)
    ann = desk.at_desk()
    quick(ann, campaign)
    tracemalloc.start()
    answer = ann.get(f"{desk.HOME}{campaign.pk}/export/csv/?token=cd")
    rows = sum(chunk.count(b"\n") for chunk in answer.streaming_content)  # type: ignore[attr-defined]
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 1_000_001
    assert peak < 20 * 2**20, f"{peak / 2**20:.0f} MB"
