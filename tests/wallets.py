"""Wallets with money in them, come by as people come by it: won, and settled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.lib import ids
from engine.lib.crypto import encrypt
from engine.models import ClientApp
from packets import invariants, selectors, settlement
from packets.invariants import Verdict
from packets.models import Account, ProviderAccount, Transfer
from tests.factories import make_claims, make_packet


def fill(app: ClientApp, names: Sequence[str], fen: int = 10_000) -> None:
    """Each of these people of the app wins so much, and has it in the wallet."""
    packet = make_packet(count=len(names), portion_fen=fen)
    lane = packet.lanes.get()
    make_claims(lane, len(names), participants=[digest(app, name) for name in names])
    while settlement.settle_lane(lane.pk).left:
        pass


def digest(app: ClientApp, name: str) -> bytes:
    return ids.participant_digest(app.pk, name)


def bank(name: str = "bank", **columns: Any) -> ProviderAccount:
    """An account of ours at the sandbox; nothing is sent where no worker runs."""
    secret = json.dumps({"secret": "s" * 32}).encode()
    return ProviderAccount.objects.create(
        name=name,
        kind="sandbox",
        base_url="http://127.0.0.1:9",
        credentials_encrypted=encrypt(secret),
        **columns,
    )


def available_fen(app: ClientApp, name: str) -> int:
    return selectors.wallet_balance(digest(app, name)).available_fen


def books() -> tuple[Any, ...]:
    """Every balance and every movement, to show that a refusal has changed nothing."""
    return (
        list(Account.objects.order_by("id").values_list("id", "debits_fen", "credits_fen")),
        list(Transfer.objects.order_by("id").values_list("reference", "amount_fen")),
    )


def assert_sound() -> None:
    """All invariants hold."""
    report = invariants.invariants_check()
    broken = [check for check in report.checks if check.verdict is not Verdict.HOLDS]
    assert not broken, broken
