"""People's own packets at the screen: seen by all, stopped and closed by few, with a reason."""

from __future__ import annotations

import re
from typing import Any

import pytest

from engine.lib.auth import Caller
from engine.models import AuditEvent, ClientApp
from packets.models import Gate, Packet
from packets.people_packets import Wanted, people_packet_create
from tests.admin import desk
from tests.campaign import stage
from tests.wallets import assert_sound, available_fen, digest, fill

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "/admin/packets/peoplepacket/"


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False


@pytest.fixture
def app() -> ClientApp:
    return stage.make_app()


@pytest.fixture
def packet(app: ClientApp) -> Packet:
    """Alice sends ¥5 of her ¥100."""
    fill(app, ["alice"], 10_000)
    alice = Caller(app.pk, "alice", digest(app, "alice"), group="family")
    wanted = Wanted("fixed", 500, 5, message="恭喜<b>发财</b>")
    return people_packet_create(sender=alice, wanted=wanted, key="k1")


def test_everybody_of_the_staff_sees_them(packet: Packet, app: ClientApp) -> None:
    for lang, words in (("en", "People can send packets"), ("zh-hans", "用户可以用钱包发红包")):
        page = desk.at_desk("support", lang=lang).get(LIST).content.decode()
        assert packet.public_id in page
        assert digest(app, "alice").hex() in page
        assert "恭喜&lt;b&gt;发财" in page
        assert words in page
    support = desk.at_desk("support")
    # Found by whose they are and by their id; nobody may change one, and few may stop them.
    for text, found in (("alice", True), (packet.public_id, True), ("bob", False)):
        shown = support.get(LIST, {"q": text}).content.decode()
        assert (f"{packet.public_id}</a>" in shown) is found, text
    assert "Stop people" not in support.get(LIST).content.decode()
    alone = support.get(f"{LIST}{packet.pk}/change/").content.decode()
    assert "k1" not in re.findall(r">\s*([^<]*?)\s*<", alone)


def test_all_are_stopped_and_allowed_again(packet: Packet, app: ClientApp) -> None:
    ann = desk.at_desk("sre")
    assert "Nobody can send a packet" in ann.get(f"{LIST}gate/").content.decode()
    assert ann.post(f"{LIST}gate/", {"reason": ""}).status_code == 422

    assert ann.post(f"{LIST}gate/", {"reason": "fraud"}).status_code == 302

    assert Gate.objects.get(key="people").state == "paused"
    assert "nobody can send or claim one. Reason: fraud" in ann.get(LIST).content.decode()
    assert ann.post(f"{LIST}gate/", {"reason": "all clear"}).status_code == 302
    assert Gate.objects.get(key="people").state == "open"
    events = AuditEvent.objects.filter(object_id="people").order_by("id")
    assert list(events.values_list("actor", "action", "reason")) == [
        ("staff:sre", "gate.paused", "fraud"),
        ("staff:sre", "gate.open", "all clear"),
    ]


def test_one_is_closed_and_goes_back_to_its_sender(packet: Packet, app: ClientApp) -> None:
    ann = desk.at_desk("operations")
    address = f"{LIST}{packet.pk}/close/"
    assert "¥5.00 that nobody has claimed goes back" in ann.get(address).content.decode()

    assert ann.post(address, {"reason": "rude words"}).status_code == 302

    packet.refresh_from_db()
    assert packet.state == "closed"
    assert available_fen(app, "alice") == 10_000
    assert AuditEvent.objects.get(action="packet.close").reason == "rude words"
    # Once: a second press says so.
    assert "closed" in ann.post(address, {"reason": "again"}).content.decode()
    assert f"{packet.pk}/close/" not in ann.get(LIST).content.decode()
    assert_sound()
