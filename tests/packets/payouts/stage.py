"""The stage of stories about payouts: a provider account, a wallet with money, a scripted rail."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from django.db.models.functions import Now

from engine.lib.crypto import encrypt
from packets import ledger
from packets.ledger import Entry
from packets.models import Account, Payout, PayoutNumber, ProviderAccount, Transfer
from packets.payouts import sending
from packets.payouts.numbers import payee_encrypt
from packets.providers.base import (
    BadCallback,
    Capabilities,
    Event,
    Kind,
    Order,
    Provider,
    Result,
    StatementLine,
)
from tests.world import APP, person

_numbers = itertools.count(1)


def provider_account(name: str = "", **columns: Any) -> ProviderAccount:
    columns.setdefault("kind", ProviderAccount.Kind.SANDBOX)
    columns.setdefault("credentials_encrypted", encrypt(json.dumps({"secret": "s" * 16}).encode()))
    return ProviderAccount.objects.create(name=name or f"rail{next(_numbers)}", **columns)


def wallet_with(name: str, amount_fen: int) -> Account:
    """The person's wallet, filled by what came back of a packet of their own."""
    owner = person(name).participant.hex()
    wallet = ledger.account_get_or_create(kind=Account.Kind.WALLET, owner=owner)
    campaign = ledger.account_get_or_create(kind=Account.Kind.CAMPAIGN, owner=f"of-{name}")
    escrow = ledger.account_get_or_create(kind=Account.Kind.ESCROW, owner=f"of-{name}")
    if amount_fen:
        tag = uuid.uuid4().hex
        outside = ledger.external_account().pk
        fund, open_, close = Transfer.Kind.FUND, Transfer.Kind.OPEN, Transfer.Kind.CLOSE
        ledger.post([Entry(f"fund:{tag}", fund, outside, campaign.pk, amount_fen)])
        ledger.post([Entry(f"open:{tag}", open_, campaign.pk, escrow.pk, amount_fen)])
        ledger.post([Entry(f"close:{tag}", close, escrow.pk, wallet.pk, amount_fen)])
    return wallet


def payout_of(
    account: ProviderAccount,
    name: str = "alice",
    amount_fen: int = 500,
    wallet: Account | None = None,
    payee_account: str = "",
    **columns: Any,
) -> Payout:
    """A payout as a withdrawal leaves it: its money in clearing, due at once."""
    wallet = wallet or wallet_with(name, amount_fen)
    payout_id = uuid.uuid4()
    clearing = sending.clearing_account(account)
    ledger.post(
        [
            Entry(
                f"payout:{payout_id.hex}",
                Transfer.Kind.PAYOUT,
                wallet.pk,
                clearing.pk,
                amount_fen,
            )
        ]
    )
    columns.setdefault("next_attempt_at", Now())
    payout = Payout.objects.create(
        id=payout_id,
        account=account,
        wallet=wallet,
        participant=bytes.fromhex(wallet.owner),
        client_app_id=APP,
        amount_fen=amount_fen,
        payee_encrypted=payee_encrypt(payee_account or f"{name}@bank", name),
        payee_masked=f"{name[:1]}***",
        payee_hash=columns.pop("payee_hash", name),
        key=uuid.uuid4().hex,
        **columns,
    )
    return Payout.objects.get(id=payout.id)


class Rail:
    """A provider that answers as it is told, and remembers what it was asked."""

    name = "scripted"
    capabilities = Capabilities(
        min_fen=1,
        max_fen=None,
        out_number_max=32,
        user_action=True,
        cancel=True,
        query_window_days=30,
        statement=False,
    )

    def __init__(self) -> None:
        self.answers: list[Result | Exception] = []
        self.asked: list[tuple[str, str, bytes]] = []
        self.unsendable = ""

    def says(self, *answers: Result | Exception) -> Rail:
        self.answers += answers
        return self

    def _answer(self, what: str, number: str, request: bytes = b"") -> Result:
        self.asked.append((what, number, request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def request(self, order: Order) -> bytes:
        if self.unsendable:
            raise ValueError(self.unsendable)
        # Something random in it, as an encrypted name is: a resend must not be made anew.
        return f"{order.out_number} {order.amount_fen} {uuid.uuid4().hex}".encode()

    def submit(self, out_number: str, request: bytes) -> Result:
        return self._answer("submit", out_number, request)

    def query(self, out_number: str) -> Result:
        return self._answer("query", out_number)

    def cancel(self, out_number: str) -> Result:
        return self._answer("cancel", out_number)

    def parse_callback(self, headers: Mapping[str, str], raw: bytes) -> Event:
        if headers.get("signature") != "good":
            raise BadCallback("not ours")
        return Event(raw.decode(), event_id="e1")

    def statement(self, day: dt.date) -> Iterator[StatementLine]:
        raise NotImplementedError

    def balance(self) -> int:
        raise NotImplementedError

    @property
    def steps(self) -> list[str]:
        return [what for what, _, _ in self.asked]


def use(monkeypatch: pytest.MonkeyPatch, rail: Rail) -> Rail:
    def provider_of(account: ProviderAccount) -> Provider:
        return rail

    monkeypatch.setattr("packets.payouts.sending.provider_of", provider_of)
    monkeypatch.setattr("packets.payouts.callbacks.provider_of", provider_of)
    return rail


def due_now(payout: Payout) -> None:
    """What it waits for has come."""
    Payout.objects.filter(id=payout.id, next_attempt_at__isnull=False).update(next_attempt_at=Now())


def ages(payout: Payout, seconds: float) -> None:
    """So much time has passed since it was sent."""
    by = dt.timedelta(seconds=seconds)
    now = Payout.objects.get(id=payout.id)
    assert now.first_submitted_at and now.last_submitted_at
    Payout.objects.filter(id=payout.id).update(
        first_submitted_at=now.first_submitted_at - by,
        last_submitted_at=now.last_submitted_at - by,
    )


def step(payout: Payout) -> Payout:
    """It is due, and somebody makes its step."""
    due_now(payout)
    assert sending.payout_step()
    return Payout.objects.get(id=payout.id)


def number_of(payout: Payout) -> PayoutNumber:
    return PayoutNumber.objects.get(payout=payout, state="live")


PAID = Result(Kind.PAID, code="SUCCESS", provider_ref="r1")
ACCEPTED = Result(Kind.ACCEPTED, code="ACCEPTED")
UNKNOWN = Result(Kind.UNKNOWN, code="timeout")
NOT_FOUND = Result(Kind.UNKNOWN, code="NOT_FOUND", not_found=True)
FAILED = Result(Kind.FAILED_FINAL, code="ACCOUNT_CLOSED", detail="no such account")
