"""What a person takes out of their own wallet, one act at a time.

Sending a packet and withdrawing both look first (at keys that were used, at limits a day, at money
that is too young to go) and then move. Between the look and the move nobody else must act for the
same person: `one_at_a_time` sees to that, before any row is locked. That nobody spends more than
there is doesn't rest on it; that is the ledger's CHECK.
"""

from __future__ import annotations

from django.db import connection

from engine.lib.money import CURRENCY
from packets.models import Account


def one_at_a_time(participant: bytes) -> None:
    """Until the end of the caller's transaction nobody else takes out of this person's wallet."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"wallet:{participant.hex()}"]
        )


def wallet_of(participant: bytes, currency: str = CURRENCY) -> Account | None:
    """The wallet as it stands; None where nothing ever came in."""
    return Account.objects.filter(
        kind=Account.Kind.WALLET, owner=participant.hex(), currency=currency
    ).first()


# Not counted: the person's own money that came back.
_YOUNG = """
SELECT COALESCE(sum(amount_fen), 0)::bigint FROM packets_transfer
 WHERE credit_account_id = %s AND kind NOT IN ('close', 'payback')
   AND created_at > clock_timestamp() - make_interval(hours => %s)
"""


def young_fen(wallet: Account, hours: int) -> int:
    """How much came into the wallet within the last hours."""
    with connection.cursor() as cursor:
        cursor.execute(_YOUNG, [wallet.id, hours])
        return int(cursor.fetchone()[0])
