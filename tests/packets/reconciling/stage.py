"""The stage of stories about statements: an account at a provider, people who withdrew, a day."""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models.functions import Now

from engine.lib import clock
from packets import ledger, settlement
from packets.models import (
    Account,
    Payout,
    PayoutNumber,
    ProviderAccount,
    Statement,
    Transfer,
)
from packets.providers.base import LineState, StatementLine
from packets.reconciling import matching, statements
from tests import world

ZONE = ZoneInfo("Asia/Shanghai")
TODAY = clock.now().astimezone(ZONE).date()
DAY = TODAY - dt.timedelta(days=3)  # whose statement has been ready for long
_numbers = itertools.count(1)


def noon(day: dt.date = DAY, hour: int = 12, minute: int = 0) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(hour, minute), ZONE)


def account(name: str = "rail", **fields: Any) -> ProviderAccount:
    fields.setdefault("kind", ProviderAccount.Kind.SANDBOX)
    fields.setdefault("statement_after", dt.time(10, 0))
    return ProviderAccount.objects.create(name=name, **fields)


def wallet(name: str, fen: int) -> Account:
    """Alice's wallet after she won so much."""
    packet = world.open_packet(fen, 1)
    world.claim(packet, name)
    settlement.settle_due()
    return Account.objects.get(kind="wallet", owner=world.person(name).participant.hex())


def payout(
    at: ProviderAccount,
    amount_fen: int = 1_000,
    state: str = "paid",
    ended: dt.datetime | None = None,
    sent: dt.datetime | None = None,
    **fields: Any,
) -> PayoutNumber:
    """Somebody's withdrawal as it stands now; its number."""
    name = f"person-{next(_numbers)}"
    purse = wallet(name, amount_fen)
    ended = ended or noon()
    sent = sent or ended - dt.timedelta(minutes=1)
    over = state in Payout.TERMINAL
    made = Payout.objects.create(
        account=at,
        wallet=purse,
        participant=world.person(name).participant,
        client_app_id=world.APP,
        amount_fen=amount_fen,
        payee_masked="138****0000",
        payee_hash="0" * 64,
        payee_encrypted=fields.pop("payee_encrypted", ""),
        key=uuid.uuid4().hex,
        state=state,
        step="none" if over else "query",
        next_attempt_at=None if over else fields.pop("next_attempt_at", Now() + dt.timedelta(1)),
        first_submitted_at=sent,
        created_at=sent,
        ended_at=ended if over else None,
        **fields,
    )
    clearing = ledger.account_get_or_create(kind=Account.Kind.CLEARING, owner=at.name)
    move(f"payout:{made.id.hex}", Transfer.Kind.PAYOUT, purse, clearing, amount_fen)
    if state == "paid":
        outside = ledger.external_account()
        move(f"payout-end:{made.id.hex}", Transfer.Kind.PAID, clearing, outside, amount_fen)
    elif over:
        move(f"payout-end:{made.id.hex}", Transfer.Kind.PAYBACK, clearing, purse, amount_fen)
    return PayoutNumber.objects.create(
        payout=made,
        number=made.id.hex,
        request_encrypted="",
        request_sha256="0" * 64,
        state={"paid": "paid", "failed": "failed", "cancelled": "failed"}.get(state, "live"),
        ended_at=ended if over else None,
    )


def move(reference: str, kind: Any, giver: Account, taker: Account, amount_fen: int) -> None:
    ledger.post([ledger.Entry(reference, kind, giver.pk, taker.pk, amount_fen)])


def pay(number: PayoutNumber, ended: dt.datetime | None = None) -> None:
    """The provider's word has come: this payout is paid."""
    one = number.payout
    Payout.objects.filter(pk=one.pk).update(
        state="paid", step="none", next_attempt_at=None, manual_reason="", ended_at=ended or Now()
    )
    PayoutNumber.objects.filter(pk=number.pk).update(state="paid", ended_at=ended or Now())
    clearing = ledger.account_get_or_create(kind=Account.Kind.CLEARING, owner=one.account.name)
    outside = ledger.external_account()
    move(f"payout-end:{one.id.hex}", Transfer.Kind.PAID, clearing, outside, one.amount_fen)


def line(number: PayoutNumber | str, amount_fen: int = 1_000, **fields: Any) -> StatementLine:
    """What a provider says of one payout. `line_no` is given by whoever makes the statement."""
    said = StatementLine(
        line_no=0,
        out_number=number if isinstance(number, str) else number.number,
        provider_ref="ref",
        amount_fen=amount_fen,
        state=LineState.PAID,
        at=noon(),
        raw="",
    )
    return replace(said, **fields)


def as_csv(*lines: StatementLine) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["out_number", "provider_ref", "amount_fen", "state", "at"])
    for one in lines:
        rows.writerow([
            one.out_number, one.provider_ref, one.amount_fen, one.state.value, one.at.isoformat()
        ])  # fmt: skip
    return out.getvalue().encode()


def compared(at: ProviderAccount, *lines: StatementLine, day: dt.date = DAY) -> Statement:
    """A file with these lines, taken in and compared."""
    taken = statements.statement_upload(
        account=at, day=day, file=io.BytesIO(as_csv(*lines)), filename="day.csv", actor="staff:fin"
    )
    matching.statement_match(statement_id=taken.pk)
    return Statement.objects.get(pk=taken.pk)


@dataclass
class Book:
    """A provider of statements, as the interface has it; `said` is what it answers, by day."""

    said: dict[dt.date, list[StatementLine] | Exception]
    asked: int = 0

    def statement(self, day: dt.date) -> Iterator[StatementLine]:
        self.asked += 1
        found = self.said.get(day, [])
        if isinstance(found, Exception):
            raise found
        for number, one in enumerate(found, start=1):
            yield replace(one, line_no=number)
