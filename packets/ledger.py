"""The ledger: accounts, and immutable transfers between them.

Double entry in the manner of TigerBeetle: a transfer moves an amount from its debit account to its
credit account, and an account's balance is its credits minus its debits. Only the outside world may
go below zero. A transfer is never changed; a correction is a new one.

    fund a campaign      external → campaign
    open a packet        funder   → escrow
    settle a claim       escrow   → wallet
    close a packet       escrow   → whoever funded it
    refund a campaign    campaign → external

What is kept here: every movement has one reference for ever, and posting it again moves nothing.
What Postgres keeps (packets/sql/ledger.sql): a transfer and its balances are one thing, no balance
moves otherwise, nothing is overdrawn, currencies don't mix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import Error as DatabaseError
from django.db import IntegrityError, connection, transaction

from engine.lib.money import CURRENCY
from packets.models import Account, Transfer

# The owner of the external account of a currency; a drill's money has an outside world of its own,
# so that removing it leaves the real one as it was.
OUTSIDE = "outside"
OUTSIDE_OF_DRILL = "drill:"


class LedgerError(Exception):
    """A movement that was refused; nothing has moved."""


class InsufficientFunds(LedgerError):
    """The account would have gone below zero."""

    def __init__(self, account_id: int | None) -> None:
        self.account_id = account_id
        super().__init__(f"account {account_id} has not enough funds; nothing was moved")


class ReferenceReused(LedgerError):
    """The reference belongs to a movement with other content, so this one can't be its repeat."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        super().__init__(
            f"reference {reference!r} belongs to a transfer with other content; nothing was moved"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A movement to be made. `reference` names it for ever."""

    reference: str
    kind: Transfer.Kind
    debit_account_id: int
    credit_account_id: int
    amount_fen: int
    currency: str = CURRENCY


@dataclass(frozen=True, slots=True)
class Posted:
    """The transfer behind an entry; `created` is False where it was there before."""

    reference: str
    transfer_id: int
    created: bool


_INSERT = """
INSERT INTO packets_transfer
       (reference, kind, debit_account_id, credit_account_id, amount_fen, currency)
SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[])
       AS entry (reference, kind, debit_account_id, credit_account_id, amount_fen, currency)
 ORDER BY reference
    ON CONFLICT (reference) DO NOTHING
RETURNING reference, id
"""

_READ = """
SELECT reference, id, kind, debit_account_id, credit_account_id, amount_fen, currency
  FROM packets_transfer
 WHERE reference = ANY(%s::text[])
"""


def account_get_or_create(*, kind: Account.Kind, owner: str, currency: str = CURRENCY) -> Account:
    """The one account of (kind, owner, currency), made empty if it isn't there yet."""
    key = {"kind": kind, "owner": owner, "currency": currency}
    account = Account.objects.filter(**key).first()
    if account is None:
        # Two may come at once: the second does nothing and both read the same row.
        Account.objects.bulk_create([Account(**key)], ignore_conflicts=True)
        account = Account.objects.get(**key)
    return account


def external_account(currency: str = CURRENCY, drill: int | None = None) -> Account:
    """The outside world: where all money comes from and goes to; the only one below zero.

    `drill`: the client app of a drill, whose money comes from nowhere and goes nowhere.
    """
    owner = OUTSIDE if drill is None else f"{OUTSIDE_OF_DRILL}{drill}"
    return account_get_or_create(kind=Account.Kind.EXTERNAL, owner=owner, currency=currency)


def balance_fen(account_id: int) -> int:
    """Credits minus debits, as committed or as this transaction has made them."""
    sums = Account.objects.values_list("credits_fen", "debits_fen").get(pk=account_id)
    return sums[0] - sums[1]


def post(entries: Sequence[Entry]) -> list[Posted]:
    """Make all of these movements or none; a repeat of a reference moves nothing.

    One statement whatever the number of entries, so the accounts are locked once, in the order of
    their ids. Inside a caller's transaction it becomes part of it.

    Raises InsufficientFunds (naming the account), ReferenceReused, and Django's IntegrityError for
    what can only be a defect (an amount of nothing, a currency that isn't the account's).
    """
    if not entries:
        return []
    references = [entry.reference for entry in entries]
    columns = (
        references,
        [str(entry.kind) for entry in entries],
        [entry.debit_account_id for entry in entries],
        [entry.credit_account_id for entry in entries],
        [entry.amount_fen for entry in entries],
        [entry.currency for entry in entries],
    )
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_INSERT, columns)
            created = dict(cursor.fetchall())
            cursor.execute(_READ, [references])
            stored = {row[0]: row[1:] for row in cursor.fetchall()}
            for entry in entries:
                if stored[entry.reference][1:] != _content(entry):
                    raise ReferenceReused(entry.reference)
    except IntegrityError as error:
        if overdrawn(error):
            raise InsufficientFunds(account_in(error)) from error
        raise
    return [
        Posted(
            entry.reference,
            stored[entry.reference][0],
            # Twice in one call: the first made it, the second found it.
            created=created.pop(entry.reference, None) is not None,
        )
        for entry in entries
    ]


def _content(entry: Entry) -> tuple[str, int, int, int, str]:
    return (
        str(entry.kind),
        entry.debit_account_id,
        entry.credit_account_id,
        entry.amount_fen,
        entry.currency,
    )


def sqlstate(error: DatabaseError) -> str:
    """Postgres's five-letter code behind a Django error; empty where there is none."""
    return str(getattr(error.__cause__, "sqlstate", None) or "")


def overdrawn(error: DatabaseError) -> bool:
    """Whether Postgres refused because an account would have gone below zero."""
    diagnosis = getattr(error.__cause__, "diag", None)
    return getattr(diagnosis, "constraint_name", None) == "account_not_overdrawn"


# "Failing row contains (17, escrow, …": the words are translated, the row begins with its id.
_ROW_ID = re.compile(r"\((\d+),")


def account_in(error: DatabaseError) -> int | None:
    """The id of the account that Postgres's refusal speaks of, where it names one."""
    detail = getattr(getattr(error.__cause__, "diag", None), "message_detail", None) or ""
    match = _ROW_ID.search(detail)
    return int(match[1]) if match else None
