"""What the previous version says and understands, kept here as it was (docs/upgrading.md).

While a new version is rolled out, processes of both run side by side on one Postgres, one Redis and
one broker. Whatever they say to each other through these stands below and in `previous_lua/`. It is
never corrected to suit a change: it is replaced as a whole by what the product is, once a release
is out.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from engine.lib import lua

FOLDER = Path(__file__).with_name("previous_lua")
# Every migration up to these ran under the previous version.
LEAVES = [
    ("packets", "0004_claims_by_time"),
    ("campaign", "0004_burn_sample"),
    ("engine", "0003_second_factor_label"),
]

# --- Redis ----------------------------------------------------------------------------------------

# Fields of a lane's meta hash that the previous version's scripts read.
META_FIELDS = frozenset(
    "epoch state opens_ms closes_ms left_fen left_count index claimants strategy remainder key"
    " min_fen max_fen evenness start_fen start_count tier_amounts".split()
)
_RECORD = re.compile(rb"(\d+),(\d+),(\d+),(\d+),(\d+)")


def script(name: str, extra: str = "") -> lua.Script:
    """A script of the previous version. `extra`: more text before its last line."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.lua")}
    body, last = texts[name].rstrip("\n").rsplit("\n", 1)
    return lua.parse(name, f"{body}\n{extra}{last}\n", texts)


def record(epoch: int, index: int, amount_fen: int, tier: int, committed_ms: int) -> str:
    return f"{epoch},{index},{amount_fen},{tier},{committed_ms}"


def record_numbers(text: bytes) -> tuple[int, ...] | None:
    """(epoch, index, amount_fen, tier, committed_ms) of a record, None for what can't be read."""
    found = _RECORD.fullmatch(text)
    return tuple(map(int, found.groups())) if found else None


# --- Postgres -------------------------------------------------------------------------------------

COMMIT = """
SELECT verdict, claim_id, epoch, index, amount_fen, tier, committed_at, lane_epoch
  FROM laisee_commit_claims(%s, %s::bytea[], %s::integer[], %s::bigint[], %s::bigint[],
                            %s::bigint[], %s::smallint[])
"""
REMEMBER = "SELECT laisee_remember_people(%s::bytea[], %s::bigint[], %s::text[])"
VERDICTS = frozenset("won exists fenced closed paused not_started ended misplaced conflict".split())
TRUTH = """
SELECT c.id, c.epoch, c.index, c.amount_fen, c.tier, c.committed_at,
       s.exhausted, p.state = 'closed' OR l.state = 'closed',
       p.state <> 'open' OR NOT g.is_open,
       p.opens_at > clock_timestamp(), p.closes_at + interval '2 seconds' < clock_timestamp(),
       l.state = 'open', l.epoch, s.left_count
  FROM packets_packet p
  JOIN packets_lane l ON l.id = %(lane)s
  CROSS JOIN LATERAL (SELECT bool_and(n.claimed_count >= n.count) AS exhausted,
                             sum(n.count - n.claimed_count)::bigint AS left_count
                        FROM packets_lane n WHERE n.packet_id = p.id) s
  CROSS JOIN LATERAL (SELECT bool_and(k.state = 'open') AS is_open
                        FROM packets_gate k WHERE k.id = p.gate_id OR k.key = 'all') g
  CROSS JOIN unnest(%(claims)s::uuid[]) WITH ORDINALITY AS r(claim_id, o)
  LEFT JOIN packets_claim c ON c.id = r.claim_id
 WHERE p.id = %(packet)s
 ORDER BY r.o
"""

# What a worker that settles says, in this order, with the lane's cursor locked.
SETTLE_WALLETS = """
INSERT INTO packets_account (kind, owner, currency, debits_fen, credits_fen, created_at)
SELECT 'wallet', person.owner, %(currency)s, 0, 0, now()
  FROM (SELECT DISTINCT encode(claim.participant, 'hex') AS owner
          FROM packets_claim AS claim
         WHERE claim.lane_id = %(lane)s AND claim.position BETWEEN %(first)s AND %(last)s
       ) AS person
 WHERE (SELECT wallet.id FROM packets_account AS wallet
         WHERE wallet.kind = 'wallet' AND wallet.owner = person.owner
           AND wallet.currency = %(currency)s) IS NULL
 ORDER BY person.owner
    ON CONFLICT (kind, owner, currency) DO NOTHING
"""
SETTLE_MOVE = """
WITH due AS MATERIALIZED (
    SELECT claim.id, claim.amount_fen, encode(claim.participant, 'hex') AS owner,
           'settle:' || encode(uuid_send(claim.id), 'hex') AS reference,
           COALESCE((SELECT known.state = 'settled' FROM packets_claimstate AS known
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
SETTLE_CURSOR = """
UPDATE packets_lanecursor SET settled_count = %s WHERE lane_id = %s AND settled_count = %s
"""

# --- the broker -----------------------------------------------------------------------------------


def load_claimants(lane_id: int) -> None:
    """The one task with arguments, by its signature; the others are sweeps and take none."""


# By name: arguments as the previous version sends them.
MESSAGES: dict[str, list[object]] = {
    "packets.tasks.settle_sweep": [],
    "packets.tasks.settle_parked": [],
    "packets.tasks.expire_sweep": [],
    "packets.tasks.stranded_sweep": [],
    "packets.tasks.load_claimants": [1],
    "campaign.tasks.campaign_clock": [],
    "campaign.tasks.target_uploads": [],
    "campaign.tasks.notices_mail": [],
    "campaign.tasks.board_samples": [],
    "engine.tasks.idempotency_purge": [],
}

# --- processes of the previous version ------------------------------------------------------------

# Counts in the lane's own hash how often the previous version's script gave a portion: a field that
# the other version doesn't know, and must not mind.
COUNTED = "given_by_previous"
_COUNT = f"redis.call('HINCRBY', KEYS[1], '{COUNTED}', 1)\n"


@cache
def _running(name: str) -> lua.Script:
    return script(name, _COUNT if name == "claim" else "-- the previous version's text\n")


def install_scripts() -> None:
    """From here on this process runs the previous version's scripts."""
    current = lua.load

    def load(app: str, name: str) -> lua.Script:
        known = app == "packets" and (FOLDER / f"{name}.lua").exists()
        return _running(name) if known else current(app, name)

    lua.load = load  # type: ignore[assignment]
