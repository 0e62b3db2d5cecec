"""Recompute every portion of a closed packet from its revealed seed.

Takes the packet's id (the record is read from Postgres) or a saved answer of the proof route, so
that anybody can check what was published: `verify_packet --file proof.json`. Exit code 1 where
anything differs, 2 where there is nothing to check yet.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser

from engine.lib.ids import parse_hex_id
from packets import proof, revealed
from packets.models import Packet

SHOWN = 20  # mismatches printed; the rest are counted


class Command(BaseCommand):
    help = "Recompute every portion of a closed packet from its revealed seed (exit 1: it differs)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("packet", nargs="?", help="the packet's id (32 hexadecimal digits)")
        parser.add_argument("--file", type=Path, help="a saved answer of GET /packets/{id}/proof")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        record = self._record(options["packet"], options["file"])
        mismatches = proof.recompute(record)
        if options["json"]:
            found = [
                {
                    "fault": m.fault,
                    "lane": m.lane,
                    "epoch": m.epoch,
                    "index": m.index,
                    "message": m.message,
                }
                for m in mismatches
            ]
            report = {"packet": record.get("packet"), "holds": not found, "mismatches": found}
            self.stdout.write(orjson.dumps(report).decode())
        else:
            self._tell(record, mismatches)
        if mismatches:
            sys.exit(1)

    def _record(self, packet_id: str | None, file: Path | None) -> dict[str, Any]:
        if (packet_id is None) == (file is None):
            raise CommandError("name a packet or a --file, one of them")
        if file is not None:
            try:
                record = orjson.loads(file.read_bytes())
            except (OSError, orjson.JSONDecodeError) as error:
                raise CommandError(f"{file}: {error}") from error
            if not isinstance(record, dict):
                raise CommandError(f"{file} holds no JSON object")
            return record
        assert packet_id is not None
        parsed = parse_hex_id(packet_id)
        packet = Packet.objects.filter(id=parsed).first() if parsed else None
        if packet is None:
            raise CommandError(f"there is no packet {packet_id}")
        if not revealed.is_revealed(packet):
            raise CommandError("its seed is revealed when the packet is closed", returncode=2)
        return revealed.record(packet)

    def _tell(self, record: dict[str, Any], mismatches: list[proof.Mismatch]) -> None:
        for mismatch in mismatches[:SHOWN]:
            place = f"lane {mismatch.lane}, epoch {mismatch.epoch}, index {mismatch.index}: "
            self.stdout.write(f"{place if mismatch.lane is not None else ''}{mismatch.message}")
        if len(mismatches) > SHOWN:
            self.stdout.write(f"… and {len(mismatches) - SHOWN} more")
        claims = record.get("claims", [])
        if not mismatches:
            self.stdout.write(f"holds: {len(claims)} portions recomputed from the revealed seed")
        else:
            self.stdout.write(f"does not hold: {len(mismatches)} faults")
