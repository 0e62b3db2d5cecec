"""What the tests of settlement share: one-lane packets, pictures of the books, held locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection
from django.db.models import Sum

from packets import selectors
from packets.models import Account, Claim, ClaimState, Lane, LaneCursor, Packet, Transfer
from tests.factories import make_packet

ROOT = Path(__file__).resolve().parent.parent.parent


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


def refuse_money(owner_dsn: str, participant: bytes | None) -> None:
    """One wallet refuses all money (as a defect would); None lets it take money again."""
    connection.close()
    with psycopg.connect(owner_dsn) as link:
        link.execute("ALTER TABLE packets_account DROP CONSTRAINT IF EXISTS test_refuses")
        if participant is not None:
            link.execute(
                "ALTER TABLE packets_account ADD CONSTRAINT test_refuses CHECK"
                f" (owner <> '{participant.hex()}' OR credits_fen = 0)"
            )


class Workers:
    """Processes that settle at once (see settle_worker.py)."""

    def __init__(self, count: int) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.packets.settle_worker"],
                cwd=ROOT,
                env=os.environ | {"DJANGO_SETTINGS_MODULE": "engine.settings"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        assert [self._line(process) for process in self.processes] == ["ready"] * count

    def settle(self, limit: int) -> list[dict[str, Any]]:
        """Let all of them settle until nothing is left; what each has done."""
        connection.close()
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{limit}\n")
            process.stdin.flush()
        return [json.loads(self._line(process)) for process in self.processes]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()


def total(results: Sequence[dict[str, Any]], name: str) -> int:
    return sum(result[name] for result in results)
