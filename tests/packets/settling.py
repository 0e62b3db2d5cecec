"""What the tests of settlement share: one-lane packets, pictures of the books, held locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db.models import Sum

from packets import selectors
from packets.models import Account, Claim, ClaimState, Lane, LaneCursor, Packet, Transfer
from tests.factories import make_packet


def one_lane(count: int, **options: Any) -> tuple[Packet, Lane]:
    packet = make_packet(count=count, **options)
    return packet, packet.lanes.get()


def wallet_fen(participant: bytes) -> int:
    return selectors.wallet_balance(participant).available_fen


def escrow_fen(packet: Packet) -> int:
    assert packet.escrow_id is not None
    return Account.objects.get(id=packet.escrow_id).balance_fen


def settled_count(lane: Lane) -> int:
    return LaneCursor.objects.get(lane=lane).settled_count


def picture() -> tuple[object, ...]:
    return (
        list(Transfer.objects.order_by("id").values_list("reference", "amount_fen")),
        list(ClaimState.objects.order_by("claim_id").values_list("claim_id", "state")),
        list(LaneCursor.objects.order_by("lane_id").values_list("lane_id", "settled_count")),
        list(Account.objects.order_by("id").values_list("id", "debits_fen", "credits_fen")),
    )


def assert_all_paid_once() -> None:
    """Every claim has its one transfer, and every wallet holds exactly its claims."""
    paid = Transfer.objects.filter(kind="settle")
    expected = {f"settle:{claim.hex}" for claim in Claim.objects.values_list("id", flat=True)}
    assert set(paid.values_list("reference", flat=True)) == expected
    assert paid.count() == len(expected)
    owed = {
        bytes(row["participant"]).hex(): row["sum"]
        for row in Claim.objects.values("participant").annotate(sum=Sum("amount_fen")).order_by()
    }
    wallets = Account.objects.filter(kind="wallet")
    assert {wallet.owner: wallet.balance_fen for wallet in wallets} == owed


@contextmanager
def locked(dsn: str, query: str) -> Iterator[None]:
    """Somebody else's open transaction that holds these rows."""
    with psycopg.connect(dsn) as link:
        link.execute(query)
        yield
        link.rollback()
