"""A hold ends by a person's decision: released to the wallet, or forfeited to the funder.

What is kept here: exactly one of the two happens, once. The hold leaves `open` by a conditional
UPDATE, the movement of both decisions is `resolve:{hold}`, and Postgres refuses a second end
(trigger hold_once). What somebody funded from a wallet goes back to that wallet.
"""

from __future__ import annotations

import uuid

from django.db import connection, transaction
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError, TransitionRefused
from packets import events, ledger
from packets.models import Account, ClaimState, Hold, Transfer

REASON_MAX_CHARS = 200

RESOLVE = """
UPDATE packets_hold
   SET state = %(state)s, resolved_by = %(actor)s, resolved_at = clock_timestamp(),
       reason = %(reason)s
 WHERE id = %(hold)s
   -- guard:resolve_open begin
   AND state = 'open'
   -- guard:resolve_open end
"""

_CLAIM_STATE = """
UPDATE packets_claimstate
   SET state = %(state)s, transfer_id = %(transfer)s, changed_at = statement_timestamp()
 WHERE claim_id = %(claim)s AND state = 'held'
"""


def hold_release(*, hold_id: uuid.UUID, actor: str, reason: str) -> Hold:
    """The person gets the money after all. Raises TransitionRefused, ServiceError."""
    return _resolve(hold_id, Hold.State.RELEASED, actor, reason)


def hold_forfeit(*, hold_id: uuid.UUID, actor: str, reason: str) -> Hold:
    """Whoever funded the packet gets the money back. Raises TransitionRefused, ServiceError."""
    return _resolve(hold_id, Hold.State.FORFEITED, actor, reason)


def reference(hold: Hold) -> str:
    """The one name of the movement that ends a hold, whichever way it goes."""
    return f"resolve:{hold.pk.hex}"


def _resolve(hold_id: uuid.UUID, state: Hold.State, actor: str, reason: str) -> Hold:
    reason = reason.strip()
    if not reason:
        raise ServiceError("reason", "blank", _("Say why: the person may ask."))
    if len(reason) > REASON_MAX_CHARS:
        raise ServiceError("reason", "too_long", _("The reason is too long."))
    released = state == Hold.State.RELEASED
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            RESOLVE, {"state": state, "actor": actor[:150], "reason": reason, "hold": hold_id}
        )
        hold = Hold.objects.get(pk=hold_id)
        if cursor.rowcount != 1:
            raise TransitionRefused(
                hold.pk.hex, hold.state, (Hold.State.OPEN,), dict(Hold.State.choices)
            )
        held = Account.objects.get(
            kind=Account.Kind.HELD, owner=bytes(hold.participant).hex(), currency=hold.currency
        )
        [moved] = ledger.post(
            [
                ledger.Entry(
                    reference=reference(hold),
                    kind=Transfer.Kind.RELEASE if released else Transfer.Kind.FORFEIT,
                    debit_account_id=held.pk,
                    credit_account_id=hold.wallet_id if released else hold.funder_id,
                    amount_fen=hold.amount_fen,
                    currency=hold.currency,
                )
            ]
        )
        if hold.claim_id is not None:
            settled = ClaimState.State.SETTLED if released else ClaimState.State.FORFEITED
            cursor.execute(
                _CLAIM_STATE,
                {"state": settled, "transfer": moved.transfer_id, "claim": hold.claim_id},
            )
            assert cursor.rowcount == 1, f"claim {hold.claim_id} of hold {hold.pk} is not held"
            if released:
                events.claim_released(cursor, hold.claim_id, hold.currency)
        audit_record(
            actor=actor,
            action="hold.release" if released else "hold.forfeit",
            object_type="hold",
            object_id=hold.pk.hex,
            before={"state": Hold.State.OPEN},
            after={"state": state, "amount_fen": hold.amount_fen},
            reason=reason,
        )
    return hold
