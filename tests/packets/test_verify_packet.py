"""Anybody can recompute every portion of a closed packet; a changed one shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from django.core.management import CommandError, call_command

from engine.lib.redis import stock as stock_client
from packets import proof, recovery, revealed, services, splitting
from packets.claiming.effects import Result
from packets.models import Packet
from tests import world
from tests.conftest import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def win(packet: Packet, name: str) -> None:
    """Asked until it is theirs: whoever meets a dry lane hears `busy` while portions move there."""
    wait_until(lambda: world.claim(packet, name).result is Result.WON, 20, f"a portion for {name}")


@pytest.fixture(params=["lucky", "fixed", "double_mean", "tiers"])
def closed(request: pytest.FixtureRequest) -> Packet:
    """Claimed over two lanes and, in each, two epochs, with a gap; then closed."""
    tiers = [(5_000, 1), (100, 3)] if request.param == "tiers" else []
    packet = world.open_packet(20_000, 30, lane_count=2, strategy=request.param, tiers=tiers)
    for i in range(8):
        win(packet, f"user{i}")
    for lane in packet.lanes.all():
        recovery.rebuild(stock_client(), lane_id=lane.id, seen_epoch=lane.epoch)
    for i in range(8, 20):
        win(packet, f"user{i}")
    services.packet_close(packet_id=packet.id, actor="test")
    return packet


def test_it_holds(closed: Packet, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("verify_packet", closed.id.hex)
    assert capsys.readouterr().out == "holds: 20 portions recomputed from the revealed seed\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["claims"][3].update(amount_fen=19_999),
        lambda record: record["rules"].__setitem__("evenness", 4),
        lambda record: record.__setitem__("seed", "00" * 16),
        lambda record: record["lanes"][0]["epochs"].pop(0),
        lambda record: record["lanes"].reverse(),
    ],
    ids=["amount", "rules", "seed", "a hidden epoch", "swapped lanes"],
)  # fmt: skip
def test_a_change_shows(
    closed: Packet, change: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = revealed.record(closed)
    change(record)
    file = tmp_path / "proof.json"
    file.write_bytes(orjson.dumps(record))
    with pytest.raises(SystemExit) as stop:
        call_command("verify_packet", file=file, json=True)
    assert stop.value.code == 1
    assert orjson.loads(capsys.readouterr().out)["holds"] is False


def test_nothing_is_revealed_before_it_is_closed() -> None:
    packet = world.open_packet()
    with pytest.raises(CommandError, match="revealed when the packet is closed"):
        call_command("verify_packet", packet.id.hex)


def test_a_prize_dealt_by_hand_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator puts the grand prize into the lane of a friend, and commits to that."""
    deal = splitting.lanes

    def by_hand(rules: Any, count: int, seed: bytes = b"") -> Any:
        return deal(rules, count, b"the friend's lane")

    monkeypatch.setattr(splitting, "lanes", by_hand)
    faults = set()
    for _ in range(12):
        packet = world.open_packet(10_000, 20, strategy="tiers", tiers=[(3_000, 1)], lane_count=4)
        services.packet_close(packet_id=packet.id, actor="test")
        faults |= {m.fault for m in proof.recompute(revealed.record(packet))}
    # By chance the seed may deal it the same way, but not twelve times.
    assert faults == {proof.Fault.LANES_DIFFER}
