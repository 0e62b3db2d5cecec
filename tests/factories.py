"""Funding, packets and claims for tests of the ledger, of settlement and of the invariants."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.db import connection

from engine.lib import clock
from engine.lib.ids import home_lane, participant_digest
from packets import ledger
from packets.models import (
    Account,
    Claim,
    Gate,
    Lane,
    LaneCursor,
    LaneEpoch,
    Packet,
    Transfer,
)

CLIENT_APP = 1
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Funding:
    """A campaign's account with money on it, behind an open gate."""

    account: Account
    gate: Gate


def make_funding(amount_fen: int = 100_000_000) -> Funding:
    """A campaign account funded from the outside world; its gate and the gate `all` stand open."""
    name = f"test-{next(_numbers)}"
    account = ledger.account_get_or_create(kind=Account.Kind.CAMPAIGN, owner=name)
    ledger.post(
        [
            ledger.Entry(
                reference=f"fund:{name}",
                kind=Transfer.Kind.FUND,
                debit_account_id=ledger.external_account().id,
                credit_account_id=account.id,
                amount_fen=amount_fen,
            )
        ]
    )
    gate, _ = Gate.objects.update_or_create(key=f"campaign:{name}", defaults={"state": "open"})
    Gate.objects.update_or_create(key=Gate.ALL, defaults={"state": "open"})
    return Funding(account, gate)


def make_packet(
    *,
    count: int = 10,
    portion_fen: int = 100,
    lanes: int = 1,
    funding: Funding | None = None,
) -> Packet:
    """An open packet of `count` equal portions: every amount in a test is known beforehand.

    Written down as `packet_open` leaves it, but without a stock in Redis: for tests of what stands
    behind the claim path.
    """
    funding = funding or make_funding()
    now = clock.now()
    packet_id = uuid.uuid4()
    escrow = ledger.account_get_or_create(kind=Account.Kind.ESCROW, owner=packet_id.hex)
    packet = Packet.objects.create(
        id=packet_id,
        gate=funding.gate,
        funder=funding.account,
        escrow=escrow,
        state=Packet.State.OPEN,
        strategy=Packet.Strategy.FIXED,
        total_fen=count * portion_fen,
        count=count,
        lane_count=lanes,
        opens_at=now - dt.timedelta(minutes=1),
        opened_at=now,
        closes_at=now + dt.timedelta(hours=1),
        client_apps=[CLIENT_APP],
        seed_encrypted="",
        commitment="",
        home_key=packet_id.bytes,
    )
    for number in range(lanes):
        share = count // lanes + (number < count % lanes)
        lane = Lane.objects.create(
            packet=packet,
            number=number,
            total_fen=share * portion_fen,
            count=share,
            state=Lane.State.OPEN,
            epoch=1,
        )
        LaneCursor.objects.create(lane=lane)
        LaneEpoch.objects.create(
            lane=lane,
            epoch=1,
            left_fen=lane.total_fen,
            left_count=lane.count,
            cause=LaneEpoch.Cause.OPENED,
        )
    ledger.post(
        [
            ledger.Entry(
                reference=f"open:{packet_id.hex}",
                kind=Transfer.Kind.OPEN,
                debit_account_id=funding.account.id,
                credit_account_id=escrow.id,
                amount_fen=packet.total_fen,
            )
        ]
    )
    return packet


def people(packet: Packet, lane: Lane, prefix: str = "person") -> Iterator[bytes]:
    """Participants whose home is this lane, without end, the same ones every time."""
    for number in itertools.count():
        digest = participant_digest(CLIENT_APP, f"{prefix}-{number}")
        if home_lane(bytes(packet.home_key), digest, packet.lane_count) == lane.number:
            yield digest


def make_claims(
    lane: Lane, n: int, *, participants: Sequence[bytes] | None = None, serial: int = 0
) -> list[Claim]:
    """The lane's next `n` portions, claimed through the function that commits every claim."""
    lane = Lane.objects.select_related("packet").get(id=lane.id)
    packet = lane.packet
    assert packet.strategy == "fixed", "amounts are known for equal portions only"
    portion_fen = packet.total_fen // packet.count
    if participants is None:
        known = {
            bytes(who)
            for who in Claim.objects.filter(lane=lane).values_list("participant", flat=True)
        }
        fresh = (who for who in people(packet, lane) if who not in known)
        participants = list(itertools.islice(fresh, n))
    begin = Claim.objects.filter(lane=lane, epoch=lane.epoch).count()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT verdict, claim_id FROM laisee_commit_claims(%s, %s::bytea[], %s::integer[],"
            " %s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[])",
            [
                lane.id,
                list(participants),
                [serial] * n,
                [lane.epoch] * n,
                list(range(begin, begin + n)),
                [portion_fen] * n,
                [0] * n,
            ],
        )
        rows = cursor.fetchall()
    assert [row[0] for row in rows] == ["won"] * n, rows[:3]
    return list(Claim.objects.filter(id__in=[row[1] for row in rows]).order_by("position"))
