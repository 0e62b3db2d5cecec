"""A world grown through the services stands in Postgres as it was made up."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from engine.lib.ids import participant_digest
from packets.models import Claim
from referrals.growing.world import KINDS, NOBODY, Preset, make_world
from referrals.models import Referral, ServerEvent, ShareLink, Visit
from tests.campaign import stage as campaigns
from tests.referrals import stage

pytestmark = pytest.mark.django_db(transaction=True)

USERS, SEED = 120, 4
FARMS = {KINDS[0]: 0.2, KINDS[2]: 0.1}


def grow(**options: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command("grow", users=USERS, seed=SEED, per_second=10_000, stdout=out, **options)
    said: dict[str, Any] = json.loads(out.getvalue())
    return said


def test_the_forest_in_postgres_is_the_made_up_one(tmp_path: Path) -> None:
    growth = stage.sharing()
    slug, app = growth.campaign.slug, stage.app_of(growth.campaign)
    packet = campaigns.first_packet(growth.campaign)
    said = grow(
        campaign=slug,
        farms="star:0.2,ring:0.1",
        packet=packet.public_id,
        truth=tmp_path / "truth.json",
    )
    world = make_world(USERS, Preset.VIRAL, FARMS, SEED)

    def digest(row: int) -> bytes:
        return participant_digest(app, f"grown-{SEED}-{row:06}")

    edges = {
        (digest(row), digest(int(inviter)))
        for row, inviter in enumerate(world.inviter)
        if inviter != NOBODY
    }
    found = Referral.objects.filter(campaign=growth.campaign)
    assert {(bytes(each.invitee), bytes(each.inviter)) for each in found} == edges
    assert said["invited"] == len(edges) == said["outcomes"]["join: bound"]
    assert ShareLink.objects.count() >= len({inviter for _, inviter in edges})
    assert Visit.objects.count() >= len(edges)
    assert ServerEvent.objects.filter(kind="joined").count() == USERS
    assert Claim.objects.filter(packet=packet).count() == packet.count
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert len(truth) == said["farmers"] == int(world.is_farmer.sum()) == 36
    assert {each["kind"] for each in truth} == {"star", "ring"}
    with pytest.raises(CommandError, match="already"):
        grow(campaign=slug)


@pytest.mark.parametrize(
    "wrong", [{"farms": "moon:0.1"}, {"packet": "0" * 32}, {"campaign": "nowhere"}]
)
def test_what_makes_no_sense_grows_nothing(wrong: dict[str, str]) -> None:
    growth = stage.sharing()
    with pytest.raises(CommandError):
        grow(**{"campaign": growth.campaign.slug, **wrong})
    assert not ShareLink.objects.exists()
