"""The statements by which a range of claims is paid: quickly, and where somebody may have been.

What is kept here: a claim is written as settled only together with its one transfer, and the
wallets that two workers make at once are made in one order, that of their owners.

Wallets and states are looked up by scalar subqueries, which Postgres can only answer by their
unique keys. As joins they are at the mercy of its statistics, which in the first minute of a big
packet are those of empty tables (seen: 270 settled claims a second).
"""

from __future__ import annotations

# A range that nobody has been at, as ranges are. Each wallet is looked up once and made if it is
# missing; a wallet that somebody else makes meanwhile, a transfer or a state that is there already
# refuses the whole, and the range is paid by MOVE_REST. Asking first, and each ON CONFLICT, would
# cost every row another look-up: a quarter of all work.
#
# The only join is that of the claims with the wallets just made, both at hand. It must be hashed:
# Postgres believes that they are few, and would compare each with each. So this is run with nested
# loops switched off.
MOVE = """
WITH due AS MATERIALIZED (
    SELECT claim.id, claim.amount_fen, claim.owner,
           'settle:' || encode(uuid_send(claim.id), 'hex') AS reference,
           (SELECT wallet.id FROM packets_account AS wallet
             WHERE wallet.kind = 'wallet' AND wallet.owner = claim.owner
               AND wallet.currency = %(currency)s) AS wallet_id
      FROM (SELECT id, amount_fen, encode(participant, 'hex') AS owner
              FROM packets_claim
             WHERE lane_id = %(lane)s AND position BETWEEN %(first)s AND %(last)s
             ORDER BY owner
            OFFSET 0) AS claim
), made AS (
    INSERT INTO packets_account (kind, owner, currency, debits_fen, credits_fen, created_at)
    SELECT 'wallet', missing.owner, %(currency)s, 0, 0, now()
      FROM (SELECT DISTINCT owner FROM due WHERE wallet_id IS NULL) AS missing
     ORDER BY missing.owner
    RETURNING id, owner
), moved AS (
    INSERT INTO packets_transfer
           (reference, kind, debit_account_id, credit_account_id, currency, amount_fen)
    SELECT due.reference, 'settle', %(escrow)s, COALESCE(due.wallet_id, made.id), %(currency)s,
           due.amount_fen
      FROM due LEFT JOIN made ON made.owner = due.owner
    RETURNING id, reference, amount_fen
), stated AS (
    INSERT INTO packets_claimstate (claim_id, state, transfer_id, reason)
    SELECT substr(moved.reference, 8)::uuid, 'settled', moved.id, ''
      FROM moved
    RETURNING claim_id
)
SELECT (SELECT count(*) FROM due), 0,
       (SELECT count(*) FROM stated),
       (SELECT COALESCE(sum(amount_fen), 0)::bigint FROM moved)
"""

# A wallet that is there already costs no more this way than by looking first.
MAKE_WALLETS = """
INSERT INTO packets_account (kind, owner, currency, debits_fen, credits_fen, created_at)
SELECT 'wallet', person.owner, %(currency)s, 0, 0, now()
  FROM (SELECT DISTINCT encode(claim.participant, 'hex') AS owner
          FROM packets_claim AS claim
         WHERE claim.lane_id = %(lane)s AND claim.position BETWEEN %(first)s AND %(last)s
       ) AS person
 ORDER BY person.owner
    ON CONFLICT (owner, kind, currency) DO NOTHING
"""

# Where somebody may have been, be it the risk rules in this very transaction: what is settled or
# held stays, what is parked gets settled. After MAKE_WALLETS.
MOVE_REST = """
WITH due AS MATERIALIZED (
    SELECT claim.id, claim.amount_fen, encode(claim.participant, 'hex') AS owner,
           'settle:' || encode(uuid_send(claim.id), 'hex') AS reference,
           COALESCE((SELECT known.state <> 'parked' FROM packets_claimstate AS known
                      WHERE known.claim_id = claim.id), false) AS already
      FROM packets_claim AS claim
     WHERE claim.lane_id = %(lane)s AND claim.position BETWEEN %(first)s AND %(last)s
), moved AS (
    INSERT INTO packets_transfer
           (reference, kind, debit_account_id, credit_account_id, currency, amount_fen)
    SELECT due.reference, 'settle', %(escrow)s,
           (SELECT wallet.id FROM packets_account AS wallet
             WHERE wallet.kind = 'wallet' AND wallet.owner = due.owner
               AND wallet.currency = %(currency)s),
           %(currency)s, due.amount_fen
      FROM due
     WHERE NOT due.already
        ON CONFLICT (reference) DO NOTHING
    RETURNING id, reference, amount_fen
), stated AS (
    INSERT INTO packets_claimstate (claim_id, state, transfer_id, reason)
    SELECT substr(moved.reference, 8)::uuid, 'settled', moved.id, ''
      FROM moved
        ON CONFLICT (claim_id) DO UPDATE
       SET state = 'settled', transfer_id = EXCLUDED.transfer_id, reason = '',
           changed_at = statement_timestamp()
     WHERE packets_claimstate.state = 'parked'
    RETURNING claim_id
)
SELECT (SELECT count(*) FROM due),
       (SELECT count(*) FROM due WHERE already),
       (SELECT count(*) FROM stated),
       (SELECT COALESCE(sum(amount_fen), 0)::bigint FROM moved)
"""
