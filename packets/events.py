"""What client apps are told of claims (engine/lib/outbox.py), set-based and in settlement's own
transaction: an app hears of a settled claim exactly when its money is in the wallet.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from engine.lib.outbox import DELIVER, EventKind, outbox_wanted

# Looked up by key, claim by claim, for the reason that settlement.py gives. OFFSET 0 keeps Postgres
# from turning the look-ups into joins.
_CLAIMS_SETTLED = f"""
WITH told AS (
    INSERT INTO engine_outboxevent (id, client_app_id, kind, key, payload)
    SELECT gen_random_uuid(), claim.client_app_id, %(kind)s, claim.id, jsonb_build_object(
               'claim', claim.id, 'packet', encode(uuid_send(claim.packet_id), 'hex'),
               'user', claim.subject, 'amount_fen', claim.amount_fen, 'currency', %(currency)s,
               'claimed_at', to_char(claim.committed_at AT TIME ZONE 'UTC',
                                     'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
      FROM (
            SELECT encode(uuid_send(claim.id), 'hex') AS id, claim.packet_id, claim.amount_fen,
                   claim.committed_at, person.client_app_id, person.subject
              FROM packets_claim AS claim
             CROSS JOIN LATERAL (
                   SELECT known.client_app_id, known.subject FROM packets_participant AS known
                    WHERE known.digest = claim.participant OFFSET 0) AS person
             CROSS JOIN LATERAL (
                   SELECT FROM packets_claimstate AS became
                    WHERE became.claim_id = claim.id AND became.state = 'settled' OFFSET 0) AS paid
             WHERE claim.lane_id = %(lane)s AND claim.position BETWEEN %(first)s AND %(last)s
             OFFSET 0) AS claim
     WHERE EXISTS (
           SELECT FROM engine_webhookendpoint AS endpoint
            WHERE endpoint.client_app_id = claim.client_app_id AND endpoint.state = 'active'
              AND %(kind)s = ANY (endpoint.kinds))
        ON CONFLICT (client_app_id, kind, key) DO NOTHING
    RETURNING id, client_app_id
)
{DELIVER}
"""


def claims_settled(cursor: Any, at: Mapping[str, Any]) -> int:
    """Tell of the settled claims at these positions (`lane`, `first`, `last`, `currency`).

    Repeating tells nothing twice. While nobody asks for it, it costs one look at a small table.
    """
    kind = EventKind.CLAIM_SETTLED
    if not outbox_wanted(kind):
        return 0
    cursor.execute(_CLAIMS_SETTLED, {**at, "kind": kind.value})
    return int(cursor.rowcount)


def claim_released(cursor: Any, claim_id: uuid.UUID, currency: str) -> int:
    """Tell of one claim that was held and whose money has now come into the wallet."""
    cursor.execute("SELECT lane_id, position FROM packets_claim WHERE id = %s", [claim_id])
    lane_id, position = cursor.fetchone()
    at = {"lane": lane_id, "first": position, "last": position, "currency": currency}
    return claims_settled(cursor, at)
