"""Big lists: a bounded number of queries, none of them a count of everything; and the export."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from campaign.admin.exports import cell
from packets.models import Claim
from tests import world
from tests.admin import desk
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)

SCREENS = [
    "campaign/campaign", "packets/packet", "packets/lane", "packets/laneepoch", "packets/claim",
    "packets/claimstate", "packets/account", "packets/transfer", "packets/gate",
    "packets/participant", "engine/auditevent",
]  # fmt: skip
QUERIES_MOST = 16
BIG = r"packets_(claim|transfer|account|participant)|engine_auditevent|campaign_campaign\b"


def looked(client: Client, address: str) -> tuple[Any, list[str]]:
    with CaptureQueriesContext(connection) as seen:
        answer = client.get(address)
    return answer, [query["sql"] for query in seen.captured_queries]


@pytest.fixture
def crowd() -> Iterator[None]:
    """Sixty campaigns' worth of rows would hide nothing that three don't: queries are counted."""
    for name in ("one", "two", "three"):
        campaign = stage.live(slug=name)
        packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
        for who in ("alice", "bob", "carol"):
            world.claim(packet, world.person(who, app=app))
    yield


@pytest.mark.parametrize("screen", SCREENS)
def test_a_list_asks_a_bounded_number_of_queries_and_counts_nothing(
    screen: str, crowd: None
) -> None:
    client = desk.ann()
    client.get(f"/admin/{screen}/")  # what is asked once in a process isn't the list's

    answer, queries = looked(client, f"/admin/{screen}/")
    first = len(queries)
    stage.live(slug="a-fourth")
    _answer, queries = looked(client, f"/admin/{screen}/")

    assert answer.status_code == 200
    assert len(queries) == first <= QUERIES_MOST, "\n".join(queries)
    counts = [
        sql for sql in queries
        if re.match(r"SELECT COUNT\(", sql, re.I) and re.search(BIG, sql) and "LIMIT" not in sql
    ]  # fmt: skip
    assert counts == []


def test_a_claim_is_found_by_the_apps_user_id_and_by_its_own_id(crowd: None) -> None:
    client = desk.ann()
    claim = Claim.objects.order_by("id")[0]

    by_id = client.get(f"/admin/packets/claim/?q={claim.pk.hex}").content.decode()
    by_user = client.get("/admin/packets/claim/?q=alice").content.decode()
    by_part = client.get("/admin/packets/claim/?q=alic").content.decode()

    assert by_id.count(claim.pk.hex) >= 1
    found = {bytes(c.participant).hex() for c in Claim.objects.all() if _is_alice(c)}
    assert all(digest in by_user for digest in found)
    assert not any(digest in by_part for digest in found)


def _is_alice(claim: Claim) -> bool:
    app = claim.packet.campaign_link.campaign.client_apps.get().pk
    return bytes(claim.participant) == world.person("alice", app=app).participant


def test_the_export_holds_every_claim_in_whole_fen() -> None:
    campaign = stage.live()
    packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
    for who in ("alice", "bob"):
        world.claim(packet, world.person(who, app=app))
    client = desk.ann()

    answer = client.get(f"{desk.LIST}{campaign.pk}/export/csv/?token=abc")
    text = b"".join(answer.streaming_content).decode()
    progress = client.get(f"{desk.LIST}{campaign.pk}/export/progress/?token=abc").json()

    assert text.startswith("\ufeffclaim,packet,user,")
    rows = [line.split(",") for line in text.splitlines()[1:]]
    assert {row[0] for row in rows} == {claim.pk.hex for claim in Claim.objects.all()}
    assert sum(int(row[4]) for row in rows) == sum(c.amount_fen for c in Claim.objects.all())
    assert progress["finished"] is True and progress["text"] == "2 / 2"
    assert "campaign.export" in stage.audited(campaign)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_no_cell_of_the_export_is_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell("alice") == "alice"
