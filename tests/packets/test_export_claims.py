"""`manage.py export_claims`: every claim of one packet, once, in ranges, and nobody else's."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from engine.lib.ids import participant_digest
from packets.management.commands import export_claims
from packets.models import Claim, Packet, Participant
from tests.factories import CLIENT_APP, make_claims, make_packet

pytestmark = pytest.mark.django_db(transaction=True)


def exported(packet: Packet) -> list[dict[str, Any]]:
    printed = io.StringIO()
    call_command("export_claims", packet=packet.public_id, stdout=printed)
    return [json.loads(line) for line in printed.getvalue().splitlines()]


def expected(claim: Claim, user: str | None) -> dict[str, Any]:
    return {
        "claim": claim.id.hex,
        "user": user,
        "serial": 0,
        "amount_fen": claim.amount_fen,
        "lane": claim.lane.number,
        "epoch": 1,
        "index": claim.index,
        "committed_at": claim.committed_at.isoformat(),
    }


def test_a_packet_without_claims_is_its_first_line() -> None:
    packet = make_packet(count=10, portion_fen=100)
    assert exported(packet) == [{"packet": packet.public_id, "total_fen": 1000, "count": 10}]


@pytest.mark.parametrize("rows_a_range", [1, 2, 3, 5_000])
def test_every_claim_of_every_lane_is_exported_once(
    monkeypatch: pytest.MonkeyPatch, rows_a_range: int
) -> None:
    monkeypatch.setattr(export_claims, "ROWS_A_RANGE", rows_a_range)
    packet, other = make_packet(count=12, lanes=2), make_packet(count=12)
    first, second = packet.lanes.order_by("number")
    claims = [*make_claims(first, 5), *make_claims(second, 3)]
    make_claims(other.lanes.get(), 4)
    assert exported(packet)[1:] == [expected(claim, None) for claim in claims]
    assert len(exported(other)) == 1 + 4


def test_a_claim_carries_its_owner_s_name_in_their_own_app() -> None:
    packet = make_packet()
    digest = participant_digest(CLIENT_APP, "alice")
    Participant.objects.create(digest=digest, client_app_id=CLIENT_APP, subject="alice")
    (claim,) = make_claims(packet.lanes.get(), 1, participants=[digest])
    assert exported(packet)[1:] == [expected(claim, "alice")]


@pytest.mark.parametrize("name", ["", "nonsense", "ab" * 16, "AB" * 16])
def test_an_unknown_packet_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match="no packet"):
        call_command("export_claims", packet=name)
