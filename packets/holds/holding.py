"""Money goes into the held account: out of a packet's escrow, or out of a wallet.

What is kept here: a claim is settled or held, never both, for both are the movement
`settle:{claim}`; a wallet gives what is available at that moment and never goes below zero; the
accounts of one transaction are locked in the order of their ids, all at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection, transaction

from engine.lib.audit import audit_record
from engine.lib.money import CURRENCY
from packets import ledger
from packets.holds.rules import RiskReason, Suspected, suspected_rows
from packets.models import Account, Hold, Transfer

# By what a hold was opened that no person opened.
BY_RULE = "rule"

_MAKE_HELD = """
INSERT INTO packets_account (kind, owner, currency, debits_fen, credits_fen, created_at)
SELECT 'held', person.owner, %(currency)s, 0, 0, now()
  FROM (SELECT DISTINCT encode(claim.participant, 'hex') AS owner
          FROM packets_claim AS claim WHERE claim.id = ANY(%(claims)s)) AS person
 WHERE (SELECT held.id FROM packets_account AS held
         WHERE held.kind = 'held' AND held.owner = person.owner
           AND held.currency = %(currency)s) IS NULL
 ORDER BY person.owner
    ON CONFLICT (owner, kind, currency) DO NOTHING
"""

# All accounts of the batch, those of the claims that aren't held too: they are moved by the next
# statement of this transaction, and whoever resolves a hold locks held account and wallet together.
_LOCK = """
SELECT laisee_lock_accounts(array_agg(account.id) || %(escrow)s::bigint)
  FROM (SELECT DISTINCT encode(claim.participant, 'hex') AS owner
          FROM packets_claim AS claim
         WHERE claim.lane_id = %(lane)s AND claim.position BETWEEN %(first)s AND %(last)s
       ) AS person
 CROSS JOIN LATERAL (
       SELECT id FROM packets_account
        WHERE kind = 'wallet' AND owner = person.owner AND currency = %(currency)s
        UNION ALL
       SELECT id FROM packets_account
        WHERE kind = 'held' AND owner = person.owner AND currency = %(currency)s) AS account
"""

_HOLD = """
WITH due AS MATERIALIZED (
    SELECT claim.id, claim.participant, claim.amount_fen, packet.funder_id,
           'settle:' || encode(uuid_send(claim.id), 'hex') AS reference,
           (SELECT id FROM packets_account
             WHERE kind = 'wallet' AND owner = encode(claim.participant, 'hex')
               AND currency = %(currency)s) AS wallet_id,
           (SELECT id FROM packets_account
             WHERE kind = 'held' AND owner = encode(claim.participant, 'hex')
               AND currency = %(currency)s) AS held_id,
           asked.reasons, asked.evidence, asked.rule_id
      FROM unnest(%(claims)s::uuid[], %(reasons)s::text[], %(evidence)s::text[],
                  %(rules)s::bigint[]) AS asked (claim_id, reasons, evidence, rule_id)
      JOIN packets_claim AS claim ON claim.id = asked.claim_id
      JOIN packets_packet AS packet ON packet.id = claim.packet_id
), moved AS (
    INSERT INTO packets_transfer
           (reference, kind, debit_account_id, credit_account_id, currency, amount_fen)
    SELECT reference, 'hold', %(escrow)s, held_id, %(currency)s, amount_fen
      FROM due
        ON CONFLICT (reference) DO NOTHING
    RETURNING id, reference
), stated AS (
    INSERT INTO packets_claimstate (claim_id, state, transfer_id, reason)
    SELECT due.id, 'held', moved.id, ''
      FROM moved JOIN due USING (reference)
        ON CONFLICT (claim_id) DO UPDATE
       SET state = 'held', transfer_id = EXCLUDED.transfer_id, reason = '',
           changed_at = statement_timestamp()
     WHERE packets_claimstate.state = 'parked'
    RETURNING claim_id
), opened AS (
    INSERT INTO packets_hold (id, claim_id, participant, wallet_id, funder_id, amount_fen, currency,
                              reasons, evidence, rule_id, state, opened_by)
    SELECT gen_random_uuid(), due.id, due.participant, due.wallet_id, due.funder_id, due.amount_fen,
           %(currency)s, due.reasons::jsonb, due.evidence::jsonb, due.rule_id, 'open', %(by)s
      FROM stated JOIN due ON due.id = stated.claim_id
    RETURNING amount_fen
)
SELECT count(*), COALESCE(sum(amount_fen), 0)::bigint FROM opened
"""


def claims_hold(
    cursor: Any, suspected: Mapping[uuid.UUID, Suspected], *, at: Mapping[str, Any]
) -> int:
    """Hold what the rules have found among the claims of a range; how many were held.

    Part of settlement's transaction. The caller has the lane's cursor and has made the wallets; it
    settles every claim that has no state afterwards. `at`: `lane`, `first`, `last`, `escrow`,
    `currency` of the range.
    """
    if not suspected:
        return 0
    claims, reasons, evidence, rules = suspected_rows(suspected)
    names = {
        **at,
        "claims": claims,
        "reasons": reasons,
        "evidence": evidence,
        "rules": rules,
        "by": BY_RULE,
    }
    cursor.execute(_MAKE_HELD, names)
    cursor.execute(_LOCK, names)
    cursor.execute(_HOLD, names)
    return int(cursor.fetchone()[0])


def hold_wallet(
    *,
    participant: bytes,
    amount_fen: int,
    funder_id: int,
    reasons: Sequence[RiskReason],
    evidence: Sequence[Mapping[str, Any]] = (),
    actor: str,
    reason: str,
    currency: str = CURRENCY,
) -> Hold | None:
    """Freeze settled money of a wallet, up to what is available; None: there was nothing.

    `funder_id`: the account that gets it back if it is forfeited.
    """
    if amount_fen < 1:
        raise ValueError(f"nothing to hold: {amount_fen} fen")
    owner = participant.hex()
    with transaction.atomic():
        wallet = ledger.account_get_or_create(
            kind=Account.Kind.WALLET, owner=owner, currency=currency
        )
        held = ledger.account_get_or_create(kind=Account.Kind.HELD, owner=owner, currency=currency)
        # guard: with the wallet locked, what is available stays so until it has moved.
        accounts_lock([wallet.pk, held.pk])
        amount_fen = min(amount_fen, ledger.balance_fen(wallet.pk))
        if amount_fen == 0:
            return None
        hold = Hold.objects.create(
            participant=participant,
            wallet=wallet,
            funder_id=funder_id,
            amount_fen=amount_fen,
            currency=currency,
            reasons=list(reasons),
            evidence=list(evidence),
            opened_by=actor,
        )
        ledger.post(
            [
                ledger.Entry(
                    reference=f"hold:{hold.pk.hex}",
                    kind=Transfer.Kind.HOLD,
                    debit_account_id=wallet.pk,
                    credit_account_id=held.pk,
                    amount_fen=amount_fen,
                    currency=currency,
                )
            ]
        )
        audit_record(
            actor=actor,
            action="hold.open",
            object_type="hold",
            object_id=hold.pk.hex,
            after={"amount_fen": amount_fen, "reasons": list(reasons)},
            reason=reason,
        )
    hold.refresh_from_db()
    return hold


def accounts_lock(ids: Sequence[int]) -> None:
    """Lock these accounts in the order of their ids until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT laisee_lock_accounts(%s)", [list(ids)])
