"""`seed_demo`, `mint_token` and `kill_switch`, through the real command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import call_command
from django.http import HttpRequest

from campaign import demo as demo_module
from campaign import services
from campaign.models import Campaign, CampaignApproval, CampaignGrowth
from engine.lib import auth, clock
from engine.models import ClientKey
from engine.run.paths import CHECKOUT
from packets import services as packet_services
from packets.claiming.effects import Result
from packets.models import Account, Packet, ProviderAccount, Transfer
from packets.providers import provider_of
from tests import world

pytestmark = pytest.mark.django_db(transaction=True)


def manage(*arguments: str, fails: bool = False) -> str:
    """What `manage.py …` prints; its own process, the application's role."""
    ran = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=CHECKOUT,
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode != 0) is fails, ran.stderr
    return ran.stderr if fails else ran.stdout


def call(*arguments: str) -> str:
    """The same command in this process, which is ten times as fast."""
    printed = io.StringIO()
    call_command(*arguments, stdout=printed)
    return printed.getvalue()


def seed(run: Callable[..., str] = call) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("seed_demo"))  # one JSON object and nothing else
    return found


def test_the_demo_pays_out_through_the_copy_s_own_sandbox(settings: Any) -> None:
    assert seed()["provider"] is None, "no sandbox runs beside these tests"
    for url in ("http://127.0.0.1:1", "http://127.0.0.1:2"):
        settings.SANDBOX_URL, settings.SANDBOX_SECRET = url, "0123456789abcdef"
        name = seed()["provider"]
        account = ProviderAccount.objects.get(name=name)
        assert account.base_url == url
        assert provider_of(account).name == "sandbox"
        assert "0123456789abcdef" not in account.credentials_encrypted
    assert ProviderAccount.objects.count() == 1


def caller(demo: dict[str, Any], token: str) -> auth.Caller:
    return auth.verify_client_token(token, auth.keys_load(), clock.now())


def test_seeding_twice_prints_the_same_and_makes_nothing_twice() -> None:
    first, second = seed(manage), seed(manage)

    assert first == second
    assert set(first) == {
        "campaign",
        "packet",
        "pool",
        "api_key",
        "client_key",
        "staff",
        "provider",
    }
    assert set(first["client_key"]) == {"kid", "secret"}
    people = {member["username"]: member for member in first["staff"]}
    assert {name: member["group"] for name, member in people.items()} == {
        "demo-author": "operations",
        "demo-approver": "approver",
        "demo-finance": "finance",
        "demo-support": "support",
        "demo-sre": "sre",
        "demo-risk": "risk",
    }
    assert {name for name, member in people.items() if member["totp_secret"]} == {
        "demo-approver",
        "demo-finance",
        "demo-sre",
        "demo-risk",
    }
    approval = CampaignApproval.objects.get()  # by another than the author, like everybody's
    assert approval.approver.username == "demo-approver"
    assert approval.campaign.created_by is not None
    assert approval.campaign.created_by.username == "demo-author"
    assert Campaign.objects.count() == 1 and Packet.objects.count() == 4
    packet, pool = (Packet.objects.get(pk=first[name]) for name in ("packet", "pool"))
    assert (packet.count, packet.strategy, packet.state) == (1_000, "lucky", "open")
    assert pool.count >= 1_000_000 and pool.lanes.count() == 16
    assert Transfer.objects.filter(kind="fund").count() == 1


def test_the_demo_can_be_played_with_what_is_printed() -> None:
    demo = seed()

    token = manage("mint_token", "--user", "alice", "--new", "--device", "d1", "--age-days", "9")
    alice = caller(demo, token.strip())
    packet = Packet.objects.get(pk=demo["packet"])

    assert (alice.subject, alice.device, alice.is_new, alice.account_age_days) == (
        "alice",
        "d1",
        True,
        9,
    )
    assert world.claim(packet, alice).result is Result.WON
    for member in demo["staff"]:
        known = {"username": member["username"], "password": member["password"]}
        assert authenticate(HttpRequest(), **known) is not None
    mine = auth.sign_client_token(
        kid=demo["client_key"]["kid"],
        alg="HS256",
        material=demo["client_key"]["secret"].encode(),
        claims={"sub": "bob", "aud": "laisee", "exp": int(clock.now().timestamp()) + 60},
    )
    assert caller(demo, mine).subject == "bob"


def test_what_is_used_up_is_replaced_and_what_is_not_stays() -> None:
    demo = seed()
    growth = CampaignGrowth.objects.get()
    for used_up in (demo["packet"], growth.inviter_packet_id):
        packet_services.packet_close(packet_id=Packet.objects.get(pk=used_up).pk, actor="x")
    services.growth_edit(campaign_id=growth.campaign_id, actor="x", is_on=False)

    again = seed()

    assert again["packet"] != demo["packet"]
    assert again["pool"] == demo["pool"] and again["campaign"] == demo["campaign"]
    renewed = CampaignGrowth.objects.get()
    assert renewed.is_on and renewed.invitee_packet_id == growth.invitee_packet_id
    assert renewed.inviter_packet_id != growth.inviter_packet_id


def test_an_exhausted_packet_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "PACKET_PORTIONS", 2)
    demo = seed()
    packet = Packet.objects.get(pk=demo["packet"])
    app = packet.client_apps[0]
    world.claim(packet, world.person("alice", app=app))
    assert seed() == demo  # one portion is left
    world.claim(packet, world.person("bob", app=app))

    again = seed()

    assert again["packet"] != demo["packet"]
    assert {name: again[name] for name in ("campaign", "pool")} == {
        name: demo[name] for name in ("campaign", "pool")
    }


def test_an_ended_campaign_is_replaced_and_a_paused_one_resumed() -> None:
    demo = seed()
    campaign = Campaign.objects.get(slug=demo["campaign"])
    services.campaign_pause(campaign_id=campaign.pk, actor="x")
    assert seed() == demo
    campaign.refresh_from_db()
    assert campaign.state == "live"

    services.campaign_end(campaign_id=campaign.pk, actor="x")
    again = seed()

    assert again["campaign"] != demo["campaign"]
    assert Campaign.objects.get(slug=again["campaign"]).state == "live"

    # One that was launched before there was growth can't begin to spread.
    CampaignGrowth.objects.all().delete()
    assert seed()["campaign"] not in (demo["campaign"], again["campaign"])


def test_many_fresh_packets_raise_the_budget_and_never_overdraw() -> None:
    first = seed()
    campaign = Campaign.objects.get(slug=first["campaign"])
    Campaign.objects.filter(pk=campaign.pk).update(
        budget_fen=demo_module.PACKET_FEN + demo_module.POOL_FEN
    )
    packet_services.packet_pause(packet_id=Packet.objects.get(pk=first["packet"]).pk, actor="x")

    again = seed()

    assert again["packet"] != first["packet"]
    account = Account.objects.get(pk=campaign.account_id)
    assert account.balance_fen >= 0


def test_a_revoked_demo_key_is_good_again_after_seeding() -> None:
    demo = seed()
    ClientKey.objects.filter(kid=demo["client_key"]["kid"]).update(revoked_at=clock.now())

    assert seed() == demo
    assert demo["client_key"]["kid"] in auth.keys_load()


def test_two_seeds_at_once_agree() -> None:
    results = world.together([seed, seed], threads=2)

    assert not [r for r in results if isinstance(r, BaseException)], results
    assert results[0] == results[1]
    assert Campaign.objects.count() == 1


def test_mint_token_says_what_is_wrong() -> None:
    assert "run `manage.py seed_demo` first" in manage("mint_token", "--user", "a", fails=True)
    seed()
    assert "--ttl_s: A token lives" in manage(
        "mint_token", "--user", "a", "--ttl", "901", fails=True
    )


def test_the_kill_switch_from_a_shell() -> None:
    demo = seed()
    packet = Packet.objects.get(pk=demo["packet"])
    alice = caller(demo, call("mint_token", "--user", "alice").strip())

    assert manage("kill_switch", "on", "--reason", "drill").strip() == "all claims: paused"
    world.forget_views()
    assert world.claim(packet, alice).result is Result.PAUSED
    assert manage("kill_switch", "off").strip() == "all claims: open"
    assert world.claim(packet, alice).result is Result.WON
    assert manage("kill_switch", "on", "--campaign", demo["campaign"]).strip() == (
        f"{demo['campaign']}: paused"
    )
    assert "live" in manage("kill_switch", "on", "--campaign", demo["campaign"], fails=True)
