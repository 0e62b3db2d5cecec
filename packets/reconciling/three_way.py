"""Three books about the same money, held against each other.

    Redis      what each lane's stock says that it may still give
    Postgres   what the lanes' rows say, and what the ledger holds in escrow and clearing
    provider   what the statements say was paid, and what our account there still holds

Reading only, in short statements: each packet, and each provider account, is looked at in one
snapshot of its own. What is on its way between two books is allowed for, so that a check beside a
running crowd finds nothing where nothing is wrong:

- Postgres is read before Redis. Within an epoch the stock in Redis only shrinks, and it shrinks
  before Postgres knows, so Redis may hold less than Postgres (reservations under way), never more.
- A provider may have paid what we still hold as on its way, so its books may be ahead of ours by at
  most what lies in clearing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import redis.exceptions
from django.db import connection
from redis import Redis

from packets import stock
from packets.models import Packet, ProviderAccount, StockCheck
from packets.providers.base import CredentialsMissing, Provider, ProviderUnavailable

FOUND_KEPT = 200  # named in the report; the number of all is kept too
LANES_A_TRIP = 200
REPEAT_S = 3_000  # the hourly job does nothing where somebody checked within so many seconds

ProviderOf = Callable[[ProviderAccount], Provider]


@dataclass(frozen=True)
class Found:
    """Two books that disagree. `what` is a closed word, `where` names the packet, lane or account.

    stock_epoch        Redis serves an epoch that Postgres never opened
    stock_above        Redis may give more portions than Postgres has left
    escrow             the escrow isn't what the lanes have left and what waits for settlement
    clearing           clearing isn't the sum of the account's payouts under way
    statement_sum      a day's paid lines aren't the payouts we hold as paid, open differences aside
    provider_balance   more left our account at the provider than the ledger can explain
    """

    what: str
    where: str
    ours: int
    theirs: int


@dataclass
class Report:
    packets: int = 0
    lanes: int = 0
    not_loaded: int = 0  # lanes that Redis doesn't hold: no stock, no disagreement
    under_way: int = 0  # portions that Redis has given and Postgres doesn't know yet
    found: list[Found] = field(default_factory=list)
    accounts: dict[str, dict[str, int | str | None]] = field(default_factory=dict)
    redis: str = "read"  # or "away": then only the other two books were compared
    took_ms: int = 0

    @property
    def agrees(self) -> bool:
        return not self.found

    def as_json(self) -> dict[str, Any]:
        return {
            "packets": self.packets,
            "lanes": self.lanes,
            "not_loaded": self.not_loaded,
            "under_way": self.under_way,
            "redis": self.redis,
            "accounts": self.accounts,
            "agrees": self.agrees,
            "differences": len(self.found),
            "found": [asdict(one) for one in self.found[:FOUND_KEPT]],
            "took_ms": self.took_ms,
        }


def three_way_check(*, client: Redis, provider_of: ProviderOf) -> StockCheck:
    """Hold the three books against each other and keep what was found."""
    started = time.monotonic()
    report = Report()
    for packet_id in _packets():
        _check_packet(report, client, packet_id)
    for account in ProviderAccount.objects.order_by("id"):
        _check_account(report, account, provider_of)
    report.took_ms = int((time.monotonic() - started) * 1000)
    return StockCheck.objects.create(
        took_ms=report.took_ms,
        packets=report.packets,
        lanes=report.lanes,
        found=len(report.found),
        report=report.as_json(),
    )


def three_way_due(*, client: Redis, provider_of: ProviderOf) -> bool:
    """The hourly job. Twice at once would only say the same twice."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM packets_stockcheck"
            " WHERE at > now() - make_interval(secs => %s))",
            [REPEAT_S],
        )
        if cursor.fetchone()[0]:
            return False
    three_way_check(client=client, provider_of=provider_of)
    return True


# --- stock and escrow -----------------------------------------------------------------------------


def _packets() -> Iterator[uuid.UUID]:
    """Every packet that was opened: also a closed one's escrow must be what is left of it."""
    opened = Packet.objects.filter(opened_at__isnull=False)
    yield from opened.order_by("id").values_list("id", flat=True).iterator(chunk_size=500)


# One statement, so one snapshot: settlement and claims go on around it.
_PACKET = """
    SELECT packet.state, escrow.credits_fen - escrow.debits_fen, lanes.left_fen, waiting.fen,
           lanes.numbers, lanes.epochs, lanes.left_counts, lanes.states
      FROM packets_packet AS packet
      JOIN packets_account AS escrow ON escrow.id = packet.escrow_id
     CROSS JOIN LATERAL (
        SELECT COALESCE(sum(total_fen - claimed_fen), 0)::bigint AS left_fen,
               array_agg(number ORDER BY number) AS numbers,
               array_agg(epoch ORDER BY number) AS epochs,
               array_agg(count - claimed_count ORDER BY number) AS left_counts,
               array_agg(state ORDER BY number) AS states
          FROM packets_lane WHERE packet_id = packet.id) AS lanes
     CROSS JOIN LATERAL (
        SELECT COALESCE((
                SELECT sum(claim.amount_fen)
                  FROM packets_lane AS lane
                  JOIN packets_lanecursor AS mark ON mark.lane_id = lane.id
                  JOIN packets_claim AS claim
                    ON claim.lane_id = lane.id AND claim.position > mark.settled_count
                 WHERE lane.packet_id = packet.id), 0)
             + COALESCE((
                SELECT sum(claim.amount_fen)
                  FROM packets_lane AS lane
                  JOIN packets_claim AS claim ON claim.lane_id = lane.id
                  JOIN packets_claimstate AS known ON known.claim_id = claim.id
                 WHERE lane.packet_id = packet.id AND known.state = 'parked'), 0) AS fen
     ) AS waiting
     WHERE packet.id = %s
"""


def _check_packet(report: Report, client: Redis, packet_id: uuid.UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_PACKET, [packet_id])
        row = cursor.fetchone()
    if row is None:
        return
    state, escrow_fen, left_fen, waiting_fen, numbers, epochs, left_counts, states = row
    report.packets += 1
    expected_fen = int(waiting_fen) + (0 if state == Packet.State.CLOSED else int(left_fen))
    if escrow_fen != expected_fen:
        report.found.append(Found("escrow", packet_id.hex, int(escrow_fen), expected_fen))
    if state == Packet.State.CLOSED or not numbers:
        return
    held = _stock(report, client, packet_id, numbers)
    for number, epoch, left, lane_state in zip(numbers, epochs, left_counts, states, strict=True):
        report.lanes += 1
        where = f"{packet_id.hex}:{number}"
        in_redis = held.get(number)
        if in_redis is None:
            report.not_loaded += 1
        elif in_redis.epoch > epoch:
            # A lane that got a new epoch since Postgres was read shows it there by now.
            now_epoch = _epoch_now(packet_id, number)
            if in_redis.epoch > now_epoch:
                report.found.append(Found("stock_epoch", where, now_epoch, in_redis.epoch))
        elif in_redis.epoch == epoch and lane_state == "open":
            if in_redis.left_count > left:
                report.found.append(Found("stock_above", where, int(left), in_redis.left_count))
            report.under_way += max(0, int(left) - in_redis.left_count)


def _stock(
    report: Report, client: Redis, packet_id: uuid.UUID, numbers: Sequence[int]
) -> dict[int, stock.LaneStock]:
    held: dict[int, stock.LaneStock] = {}
    try:
        for start in range(0, len(numbers), LANES_A_TRIP):
            held |= stock.read_many(client, packet_id, numbers[start : start + LANES_A_TRIP])
    except redis.exceptions.RedisError:
        report.redis = "away"
    return held


def _epoch_now(packet_id: uuid.UUID, number: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT epoch FROM packets_lane WHERE packet_id = %s AND number = %s",
            [packet_id, number],
        )
        return int(cursor.fetchone()[0])


# --- ledger and provider --------------------------------------------------------------------------

_ACCOUNT = """
    SELECT COALESCE((SELECT credits_fen - debits_fen FROM packets_account
                      WHERE kind = 'clearing' AND owner = account.name
                        AND currency = account.currency), 0)::bigint,
           COALESCE((SELECT sum(amount_fen) FROM packets_payout
                      WHERE account_id = account.id
                        AND state NOT IN ('paid', 'failed', 'cancelled')), 0)::bigint,
           COALESCE((SELECT sum(moved.amount_fen) FROM packets_transfer AS moved
                       JOIN packets_account AS clearing ON clearing.id = moved.debit_account_id
                      WHERE moved.kind = 'paid' AND clearing.kind = 'clearing'
                        AND clearing.owner = account.name
                        AND clearing.currency = account.currency), 0)::bigint
      FROM packets_provideraccount AS account WHERE account.id = %s
"""

# What the compared statements say was paid and wasn't returned, against the payouts behind their
# lines; lines with a difference of their own are somebody's work already.
_SUMS = """
    SELECT COALESCE(sum(line.amount_fen), 0)::bigint,
           COALESCE(sum(payout.amount_fen) FILTER (WHERE payout.state = 'paid'), 0)::bigint
      FROM packets_statement AS day
      JOIN packets_statementline AS line ON line.statement_id = day.id AND line.state = 'paid'
      LEFT JOIN packets_payoutnumber AS number ON number.number = line.out_number
      LEFT JOIN packets_payout AS payout ON payout.id = number.payout_id
     WHERE day.account_id = %s AND day.state = 'matched'
       AND NOT EXISTS (SELECT FROM packets_difference AS known
                        WHERE known.account_id = day.account_id
                          AND known.out_number = line.out_number
                          AND known.resolution <> 'agrees')
       AND NOT EXISTS (SELECT FROM packets_statementline AS back
                        WHERE back.out_number = line.out_number AND back.state = 'refunded')
"""


def _check_account(report: Report, account: ProviderAccount, provider_of: ProviderOf) -> None:
    name = account.name
    with connection.cursor() as cursor:
        cursor.execute(_ACCOUNT, [account.pk])
        clearing_fen, under_way_fen, paid_fen = cursor.fetchone()
        cursor.execute(_SUMS, [account.pk])
        there_fen, here_fen = cursor.fetchone()
    if clearing_fen != under_way_fen:
        report.found.append(Found("clearing", name, clearing_fen, under_way_fen))
    if there_fen != here_fen:
        report.found.append(Found("statement_sum", name, here_fen, there_fen))
    balance_fen, why = _balance(account, provider_of)
    before = _last(name)
    facts: dict[str, int | str | None] = {
        "clearing_fen": clearing_fen,
        "paid_fen": paid_fen,
        "statements_fen": there_fen,
        "balance_fen": balance_fen,
        "balance_error": why,
        "came_in_fen": None,
    }
    if balance_fen is not None and before is not None:
        # Without anything from outside, what left our account there is what we paid.
        came_in_fen = balance_fen - int(before["balance_fen"]) + paid_fen - int(before["paid_fen"])
        facts["came_in_fen"] = came_in_fen
        if came_in_fen < -(clearing_fen + int(before["clearing_fen"])):
            report.found.append(
                Found(
                    "provider_balance",
                    name,
                    int(before["balance_fen"]) - (paid_fen - int(before["paid_fen"])),
                    balance_fen,
                )
            )
    report.accounts[name] = facts


def _balance(account: ProviderAccount, provider_of: ProviderOf) -> tuple[int | None, str]:
    try:
        return provider_of(account).balance(), ""
    except (ProviderUnavailable, CredentialsMissing) as problem:
        return None, str(problem)[:200]


def _last(name: str) -> dict[str, Any] | None:
    """What the newest check that got a balance saw of this account."""
    rows = StockCheck.objects.order_by("-at", "-id").values_list("report", flat=True)[:48]
    for row in rows:
        facts = row["accounts"].get(name)
        if facts and facts.get("balance_fen") is not None:
            return dict(facts)
    return None
