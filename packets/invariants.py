"""The invariants, asked of the rows: what must be true of packets, claims and money, checked.

The questions are SQL (packets/sql/invariants.sql); each returns offenders, so a check is green when
nobody answers. All of them see one REPEATABLE READ, READ ONLY snapshot: while claims commit and
settlement runs, two snapshots would disagree about money on its way.

How it scales: one or two passes over each table, aggregated in Postgres; nothing is fetched but the
number of offenders and a few of their names. Measured: 0.8 s of CPU for 100,000 settled claims,
growing in proportion. An old snapshot keeps every dead version of the lanes' rows alive, so
the whole has one deadline (`limit_ms`) after which it stops without a verdict; on the hot path's
server ask with a short one, and ask a replica for the rest.

Other apps bring questions of their own (`questions_register`, once at start-up): SQL in their
`sql/invariants.sql`, asked in the same snapshot.

Several checks may prove one numbered invariant. Invariants about behaviour (what was answered to
whom: 5, 6, 14) can't be seen in rows; the tests and the fault drills prove them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db import OperationalError, connection, transaction

from engine.lib.clock import rfc3339
from engine.lib.sql import load
from packets.ledger import sqlstate

# Short enough that lanes don't bloat while GET /ops/invariants runs beside the claims.
ROUTE_LIMIT_MS = 4_500
# `manage.py audit_money` is started by a person who waits for the answer.
COMMAND_LIMIT_MS = 120_000
SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
SAMPLES = 3  # offenders named per check
_QUERY_CANCELED = "57014"


class Verdict(StrEnum):
    HOLDS = "holds"
    BROKEN = "broken"


class AuditUnfinished(Exception):
    """The time was over before every check had answered; nothing is known."""


@dataclass(frozen=True, slots=True)
class Question:
    """One check: `number` is the invariant it belongs to, `meaning` what holds when it's green."""

    number: int
    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """An app's questions; `<app>/sql/invariants.sql` answers them."""

    app: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """The answer to a question: `value` counts the offenders, `detail` names the first of them."""

    number: int
    name: str
    meaning: str
    value: int
    verdict: Verdict
    detail: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Where the money is, in one currency, and how far settlement is behind."""

    currency: str
    funded_fen: int
    returned_fen: int  # to whoever funded
    paid_out_fen: int
    campaigns_fen: int
    escrow_fen: int
    wallets_fen: int
    held_fen: int
    clearing_fen: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Claims and what became of them. `held`: or forfeited; `lag_s`: age of the oldest claim that
    waits, in seconds."""

    claims: int
    claimed_fen: int
    settled: int
    parked: int
    held: int
    waiting: int
    lag_s: float


@dataclass(frozen=True, slots=True)
class InvariantReport:
    taken_at: dt.datetime
    took_ms: int
    checks: list[Check]
    totals: list[Totals]
    progress: Progress

    @property
    def holds(self) -> bool:
        return all(check.verdict is Verdict.HOLDS for check in self.checks)


QUESTIONS = (
    Question(1, "lane_caps", "no lane gave more than it has; a lane that ended gave all"),
    Question(1, "lane_counters", "each lane's counters equal its claims"),
    Question(1, "escrow_balance", "escrow = lanes − settled − held − returned"),
    Question(2, "lanes_in_packet", "lanes sum to their packet"),
    Question(2, "packet_funded", "each packet was funded with its total, by its funder"),
    Question(2, "campaign_covers", "packets sum to at most their campaign's funding"),
    Question(3, "conservation", "funding = what the accounts hold + returned + paid out"),
    Question(3, "account_sums", "each account's sums equal its transfers"),
    Question(3, "transfers_sound", "each transfer moves something between two accounts"),
    Question(3, "kinds_fit", "each transfer's kind fits the kinds of its two accounts"),
    Question(3, "one_currency", "a transfer and its accounts share one currency"),
    Question(3, "not_overdrawn", "no account but the outside world is below zero"),
    Question(3, "clearing_balance", "clearing holds exactly what payouts under way are worth"),
    Question(3, "payout_begun", "each payout's money went from its wallet to clearing, once"),
    Question(4, "one_claim_each", "one claim per packet, participant and serial"),
    Question(4, "claim_ids", "a claim's id is that of packet, participant and serial"),
    Question(4, "tickets_issued", "each claim made with a ticket has that ticket's row"),
    Question(4, "home_lanes", "each claim lies in its participant's home lane"),
    Question(4, "portion_once", "no portion belongs to two claims"),
    Question(4, "positions", "a lane's claims are numbered 1, 2, 3, … without gaps"),
    Question(7, "epochs_known", "each claim's epoch and index were opened"),
    Question(7, "epoch_order", "nothing of an epoch was committed after the next one's claims"),
    Question(7, "epoch_starts", "each epoch started with what the one before left"),
    Question(
        8, "payout_numbers", "a payout has at most one live number, and one that paid if paid"
    ),
    Question(9, "cursors", "each lane has a cursor, within its claims"),
    Question(9, "claims_dealt", "exactly the claims up to the cursor are settled, held or parked"),
    Question(9, "settled_paid", "each settled claim has one transfer to its own wallet"),
    Question(9, "paid_settled", "each such transfer has its settled claim"),
    Question(9, "states_claimed", "each state belongs to a claim"),
    Question(9, "held_claims", "each claim that was held fits its hold and its transfer"),
    Question(9, "holds_begun", "each hold has the transfer that brought its money"),
    Question(9, "holds_own", "each hold is of its own person's wallet"),
    Question(9, "held_balance", "each held account holds exactly its open holds"),
    Question(10, "holds_ended", "each hold ended once, released or forfeited, or is open"),
    Question(10, "claim_states", "a claim's state and its transfer fit each other"),
    Question(10, "payout_ended", "an ended payout's money left once: outside if paid, else back"),
    Question(10, "closed_for_good", "a closed packet has only closed lanes"),
    Question(10, "guards_in_place", "the triggers that forbid changes are there and switched on"),
    Question(11, "payout_watched", "each open payout is due some time, or a person looks at it"),
    Question(12, "returned_once", "what nobody claimed went back once, after the lanes closed"),
    Question(13, "lines_known", "each line of a statement is one payout's, or a difference"),
    Question(13, "paid_listed", "each payout paid on compared days has its line, or a difference"),
    Question(15, "audit_chain", "the audit log is one unbroken chain"),
    Question(15, "published_whole", "published rules are, to the letter, what was published"),
    Question(16, "whole_fen", "every amount is a whole number of fen"),
    Question(16, "fits_lua", "no amount is above 2^53 − 1"),
)

_sets: dict[str, QuestionSet] = {"packets": QuestionSet("packets", QUESTIONS)}

_QUERY = re.compile(r"^-- query: (\w+)\n", re.MULTILINE)

# Offenders are counted in Postgres; only the first few of each check come back.
_COUNTED = """
SELECT offender.name, count(*),
       (array_agg(offender.what ORDER BY offender.what))[1:{samples}]
  FROM ({query}) AS offender (name, what)
 GROUP BY offender.name
"""

_TOTALS = """
SELECT account.currency,
       COALESCE(sum(debits_fen) FILTER (WHERE kind = 'external'), 0)::bigint,
       COALESCE(sum(credits_fen) FILTER (WHERE kind = 'external'), 0)::bigint
       - COALESCE(max(paid.fen), 0)::bigint,
       COALESCE(max(paid.fen), 0)::bigint,
       COALESCE(sum(credits_fen - debits_fen) FILTER (WHERE kind = 'campaign'), 0)::bigint,
       COALESCE(sum(credits_fen - debits_fen) FILTER (WHERE kind = 'escrow'), 0)::bigint,
       COALESCE(sum(credits_fen - debits_fen) FILTER (WHERE kind = 'wallet'), 0)::bigint,
       COALESCE(sum(credits_fen - debits_fen) FILTER (WHERE kind = 'held'), 0)::bigint,
       COALESCE(sum(credits_fen - debits_fen) FILTER (WHERE kind = 'clearing'), 0)::bigint
  FROM packets_account AS account
  LEFT JOIN (SELECT currency, sum(amount_fen) AS fen FROM packets_payout
              WHERE state = 'paid' GROUP BY currency) AS paid
         ON paid.currency = account.currency
 GROUP BY account.currency ORDER BY account.currency
"""

_PROGRESS = """
SELECT COALESCE(sum(lane.claimed_count), 0)::bigint, COALESCE(sum(lane.claimed_fen), 0)::bigint,
       (SELECT count(*) FROM packets_claimstate WHERE state = 'settled'),
       (SELECT count(*) FROM packets_claimstate WHERE state = 'parked'),
       (SELECT count(*) FROM packets_hold AS hold
         WHERE hold.claim_id IS NOT NULL AND hold.state <> 'released'),
       COALESCE(sum(lane.claimed_count - mark.settled_count), 0)::bigint,
       COALESCE(EXTRACT(epoch FROM clock_timestamp() - min(next.committed_at)), 0)::float8
  FROM packets_lane AS lane
  LEFT JOIN packets_lanecursor AS mark ON mark.lane_id = lane.id
  LEFT JOIN packets_claim AS next
         ON next.lane_id = lane.id AND next.position = mark.settled_count + 1
"""


def questions_register(asked: QuestionSet) -> None:
    """Ask these too, from now on. Saying it twice is saying it once."""
    names = {
        one.name for app, other in _sets.items() if app != asked.app for one in other.questions
    }
    if again := names & {question.name for question in asked.questions}:
        raise AssertionError(f"asked already: {sorted(again)}")
    _sets[asked.app] = asked


def questions() -> list[Question]:
    """All questions: the money's first, then those of each app that brought some."""
    return [question for asked in _sets.values() for question in asked.questions]


def questions_sql() -> dict[str, str]:
    """The queries by app and name, in the order of each file."""
    found: dict[str, str] = {}
    for app in _sets:
        parts = _QUERY.split(load(app, "invariants.sql"))
        named = [f"{app}.{name}" for name in parts[1::2]]
        found.update(zip(named, parts[2::2], strict=True))
    return found


def invariants_check(
    *, limit_ms: int = ROUTE_LIMIT_MS, clock: Callable[[], float] = time.monotonic
) -> InvariantReport:
    """Ask every question in one snapshot. Raises AuditUnfinished after `limit_ms`.

    Must not run inside a transaction: it needs a snapshot of its own.
    """
    started = clock()
    too_slow = f"the checks were not done within {limit_ms} ms"
    answers: dict[str, tuple[int, list[str]]] = {}
    # Durable: a caller's open transaction would have a snapshot already.
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(SNAPSHOT)
        # Compiling these one-off queries costs more than it saves.
        cursor.execute("SET LOCAL jit = off")
        cursor.execute("SET LOCAL work_mem = '64MB'")

        def ask(query: str) -> list[tuple[Any, ...]]:
            left_ms = limit_ms - int((clock() - started) * 1000)
            if left_ms <= 0:
                raise AuditUnfinished(too_slow)
            try:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(left_ms)])
                cursor.execute(query)
                rows: list[tuple[Any, ...]] = cursor.fetchall()
                return rows
            except OperationalError as error:
                if sqlstate(error) == _QUERY_CANCELED:
                    raise AuditUnfinished(too_slow) from error
                raise

        taken_at = ask("SELECT now()")[0][0]
        for query in questions_sql().values():
            for name, count, samples in ask(_COUNTED.format(query=query, samples=SAMPLES)):
                answers[name] = (count, samples)
        totals = [Totals(*row) for row in ask(_TOTALS)]
        progress = Progress(*ask(_PROGRESS)[0])
    asked = questions()
    unknown = set(answers) - {question.name for question in asked}
    if unknown:
        raise AssertionError(f"invariants.sql answers what nobody asked: {sorted(unknown)}")
    return InvariantReport(
        taken_at=taken_at,
        took_ms=int((clock() - started) * 1000),
        checks=[_judge(question, *answers.get(question.name, (0, []))) for question in asked],
        totals=totals,
        progress=progress,
    )


def _judge(question: Question, count: int, samples: list[str]) -> Check:
    detail = "; ".join(samples) + ("; …" if count > len(samples) else "")
    return Check(
        number=question.number,
        name=question.name,
        meaning=question.meaning,
        value=count,
        verdict=Verdict.BROKEN if count else Verdict.HOLDS,
        detail=detail,
    )


def report_json(report: InvariantReport) -> dict[str, Any]:
    """The report as the API and `--json` show it."""
    return {
        "taken_at": rfc3339(report.taken_at),
        "took_ms": report.took_ms,
        "holds": report.holds,
        "checks": [dataclasses.asdict(check) for check in report.checks],
        "totals": [dataclasses.asdict(totals) for totals in report.totals],
        "progress": dataclasses.asdict(report.progress),
    }
