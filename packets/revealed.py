"""The revealed record of a closed packet, read from the rows; `packets/proof.py` recomputes it.

Read by key range in short statements, lane after lane in the order of positions, so that the proof
of a large packet holds no snapshot. Nothing is revealed before every lane is closed in Postgres:
after that no claim is added, so pages of it fit together whenever they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.lib.clock import rfc3339
from engine.lib.crypto import decrypt
from packets import proof, stock
from packets.models import Claim, Lane, LaneEpoch, Packet
from packets.splitting import LaneShare

PAGE_CLAIMS = 10_000  # claims of one page: about half a megabyte of JSON


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of claims begins: after this position of this lane (by number)."""

    lane: int = 0
    position: int = 0


def is_revealed(packet: Packet) -> bool:
    """Closed for good: the packet and each of its lanes."""
    if packet.state != Packet.State.CLOSED or not packet.beacon:
        return False
    return not Lane.objects.filter(packet=packet).exclude(state=Lane.State.CLOSED).exists()


def record_head(packet: Packet) -> dict[str, Any]:
    """All of the record but its claims."""
    rules = stock.rules_of(packet)
    shares = stock.shares_of(packet)
    return {
        "packet": packet.id.hex,
        "rules": proof.rules_json(rules, packet.currency),
        "canonical": proof.canonical_rules(packet.id.hex, rules, shares, packet.currency),
        "commitment": packet.commitment,
        "seed": decrypt(packet.seed_encrypted).hex(),
        "beacon": packet.beacon,
        "beacon_commitment": packet.beacon_commitment,
        "lanes": _lanes(packet, shares),
    }


def _lanes(packet: Packet, shares: Sequence[LaneShare]) -> list[dict[str, Any]]:
    """`shares`: what the lanes began with; what they hold now, moves have changed."""
    epochs: dict[int, list[dict[str, Any]]] = {}
    for epoch in LaneEpoch.objects.filter(lane__packet=packet).order_by("lane", "epoch"):
        epochs.setdefault(epoch.lane_id, []).append(
            {
                "epoch": epoch.epoch,
                "left_fen": epoch.left_fen,
                "left_count": epoch.left_count,
                "tiers_left": epoch.tiers_left,
                "cause": epoch.cause,
                "move": epoch.move,
                "opened_at": rfc3339(epoch.opened_at),
            }
        )
    return [
        {
            "lane": lane.number,
            "total_fen": share.total_fen,
            "count": share.count,
            "tiers": list(share.tiers),
            "epochs": epochs.get(lane.pk, []),
        }
        for lane, share in zip(
            Lane.objects.filter(packet=packet).order_by("number"), shares, strict=True
        )
    ]


def record_claims(
    packet: Packet, after: Place, limit: int = PAGE_CLAIMS
) -> tuple[list[dict[str, int]], Place | None]:
    """Up to `limit` claims after a place, and where the next page begins (None: no more)."""
    claims: list[dict[str, int]] = []
    for lane in Lane.objects.filter(packet=packet, number__gte=after.lane).order_by("number"):
        position = after.position if lane.number == after.lane else 0
        rows = (
            Claim.objects.filter(lane=lane, position__gt=position)
            .order_by("position")
            .values_list("epoch", "index", "amount_fen", "tier", "position")
        )[: limit - len(claims)]
        for epoch, index, amount_fen, tier, at in rows:
            claims.append(
                {
                    "lane": lane.number,
                    "epoch": epoch,
                    "index": index,
                    "amount_fen": amount_fen,
                    "tier": tier,
                }
            )
            position = at
        if len(claims) >= limit:
            return claims, Place(lane.number, position)
    return claims, None


def record(packet: Packet) -> dict[str, Any]:
    """The whole record, for `packets.proof.recompute`."""
    return {**record_head(packet), "claims": list(_all_claims(packet))}


def _all_claims(packet: Packet) -> Iterator[dict[str, int]]:
    place: Place | None = Place()
    while place is not None:
        claims, place = record_claims(packet, place)
        yield from claims
