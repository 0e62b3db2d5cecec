"""`manage.py export_claims --packet ID`: a packet's claims as JSON lines on standard output.

The first line is the packet (`packet`, `total_fen`, `count`), then one line a claim: `claim`,
`user` (the app's user id), `serial`, `amount_fen`, `lane`, `epoch`, `index`, `committed_at`.

Claims are read by key range of (lane, position) in transactions of their own, each bounded, so that
an export of millions holds no snapshot open under the hot lane. Claims are insert-only, so what the
ranges have passed does not change behind them.
"""

from __future__ import annotations

import json
import uuid
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from engine.lib.ids import parse_hex_id
from packets.models import Lane, Packet

ROWS_A_RANGE = 5_000  # a few milliseconds each, and some megabytes at most

_RANGE = """
    SELECT c.id, p.subject, c.serial, c.amount_fen, c.epoch, c.index, c.committed_at
    FROM packets_claim c LEFT JOIN packets_participant p ON p.digest = c.participant
    WHERE c.lane_id = %s AND c.position > %s AND c.position <= %s
    ORDER BY c.position
"""


class Command(BaseCommand):
    help = "Print a packet's claims as JSON lines, for checks against logs and for exports."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--packet", required=True, help="the packet's id (32 hex digits)")

    def handle(self, *args: Any, **options: Any) -> None:
        packet_id = parse_hex_id(options["packet"])
        packet = Packet.objects.filter(id=packet_id).first() if packet_id else None
        if packet is None:
            raise CommandError(f"there is no packet {options['packet']}")
        head = {
            "packet": packet.public_id,
            "total_fen": packet.total_fen,
            "count": packet.count,
        }
        self.stdout.write(json.dumps(head))
        for lines in _claims(packet.id):
            self.stdout.write("\n".join(lines))


def _claims(packet_id: uuid.UUID) -> Iterator[list[str]]:
    """Lines in chunks; the last position is read once for each lane, so the export has an end."""
    lanes = Lane.objects.filter(packet_id=packet_id).order_by("number")
    for lane_id, number in lanes.values_list("id", "number"):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT coalesce(max(position), 0) FROM packets_claim WHERE lane_id = %s",
                [lane_id],
            )
            last = int(cursor.fetchone()[0])
        for start in range(0, last, ROWS_A_RANGE):
            with connection.cursor() as cursor:
                cursor.execute(_RANGE, [lane_id, start, min(start + ROWS_A_RANGE, last)])
                rows = cursor.fetchall()
            if rows:
                yield [_line(number, row) for row in rows]


def _line(lane: int, row: tuple[Any, ...]) -> str:
    claim_id, subject, serial, amount_fen, epoch, index, committed_at = row
    return json.dumps(
        {
            "claim": claim_id.hex,
            "user": subject,
            "serial": serial,
            "amount_fen": amount_fen,
            "lane": lane,
            "epoch": epoch,
            "index": index,
            "committed_at": committed_at.isoformat(),
        },
        separators=(",", ":"),
    )
