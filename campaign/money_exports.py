"""Transfers, payouts and differences of a period as CSV, for finance and for a tax office.

Streamed in bounded memory: rows are read by key in short statements, so that a file of millions
holds no snapshot open under the hot lanes. Amounts are whole fen. Every time stands twice, in the
staff's zone and in UTC. A payee's account and name leave the house masked, unless `whole` is asked
for by somebody who may. What is withheld from a payment is not computed here: the files carry the
gross amounts and the facts from which whoever pays the tax computes it. Drills stand in none of
them: their money is nobody's.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connection
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.crypto import UnreadableSecret
from engine.lib.errors import ServiceError
from engine.lib.spreadsheet import MARK, rows_as_csv
from packets.models import Payout
from packets.payouts.numbers import payee_of

ROWS_A_CHUNK = 2_000  # read in some 20 ms
MAX_DAYS = 366  # a year's books are one file
# Ids are given in the order of time but for transactions that overlap; none may last this long.
OVERLAP_S = 60
# How Chinese tax law names what somebody wins (IIT law, article 2): incidental income.
INCOME_KINDS = {"settle": "偶然所得"}
UNREADABLE = "(unreadable)"


class What(StrEnum):
    """What a file holds."""

    TRANSFERS = "transfers"  # every movement of the ledger made in the period
    PAYOUTS = "payouts"  # payouts asked for in the period, whatever became of them
    PAID = "paid"  # payouts paid in the period: what a tax office asks for
    DIFFERENCES = "differences"  # differences of the period's days


WORDS = {
    What.TRANSFERS: _("Transfers of the ledger"),
    What.PAYOUTS: _("Payouts that were asked for"),
    What.PAID: _("Payouts that were paid"),
    What.DIFFERENCES: _("Differences of reconciling"),
}


@dataclass(frozen=True)
class Period:
    """Whole days of the staff's zone, both included."""

    first: dt.date
    last: dt.date

    @property
    def start(self) -> dt.datetime:
        return dt.datetime.combine(self.first, dt.time(), ZoneInfo(settings.STAFF_TIME_ZONE))

    @property
    def end(self) -> dt.datetime:
        after = self.last + dt.timedelta(days=1)
        return dt.datetime.combine(after, dt.time(), ZoneInfo(settings.STAFF_TIME_ZONE))


def money_export(
    *, what: str, period: Period, whole: bool, actor: str, request: Any = None
) -> Iterator[bytes]:
    """The file in pieces. The audit log knows who took what before the first one is given."""
    if what not in What._value2member_map_:
        raise ServiceError("what", "unknown", _("Choose what the file holds."))
    if period.last < period.first:
        raise ServiceError("last", "before_first", _("The last day is before the first."))
    if (period.last - period.first).days >= MAX_DAYS:
        raise ServiceError("last", "too_long", _("At most %(most)s days."), most=MAX_DAYS)
    kind = What(what)
    audit_record(
        actor=actor,
        action="export.money",
        object_type="export",
        object_id=kind.value,
        after={
            "from": period.first.isoformat(),
            "to": period.last.isoformat(),
            "whole_payees": whole,
        },
        request=request,
    )
    return _file(kind, period, whole)


def _file(kind: What, period: Period, whole: bool) -> Iterator[bytes]:
    columns, chunks, line = _FILES[kind]
    zone = settings.STAFF_TIME_ZONE
    yield MARK + rows_as_csv([[name.replace("{zone}", zone) for name in columns]])
    for rows in chunks(period):
        yield rows_as_csv([line(row, whole) for row in rows])


def _times(at: dt.datetime | None) -> list[str]:
    """[in the staff's zone, in UTC]."""
    if at is None:
        return ["", ""]
    local = at.astimezone(ZoneInfo(settings.STAFF_TIME_ZONE))
    return [f"{local:%Y-%m-%d %H:%M:%S}", f"{at.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"]


def _hex(value: uuid.UUID | None) -> str:
    return value.hex if value else ""


Rows = list[tuple[Any, ...]]


def _read(sql: str, values: Any) -> Rows:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        rows: Rows = cursor.fetchall()
    return rows


# --- transfers ------------------------------------------------------------------------------------

TRANSFER_COLUMNS = (
    "transfer", "reference", "kind", "income_kind", "amount_fen", "currency", "from_kind",
    "from_owner", "to_kind", "to_owner", "client_app", "user", "campaign", "packet",
    "at {zone}", "at_utc",
)  # fmt: skip
_TRANSFERS = """
    SELECT moved.id, moved.reference, moved.kind, moved.amount_fen, moved.currency,
           giver.kind, giver.owner, taker.kind, taker.owner, app.slug, who.subject,
           campaign.slug, packet.id,
           'external' IN (giver.kind, taker.kind)
               AND CASE 'external' WHEN giver.kind THEN giver.owner ELSE taker.owner END
                   LIKE 'drill:%%'
           OR COALESCE(app.is_drill, false)
           OR EXISTS (SELECT FROM engine_clientapp AS marked
                       WHERE marked.id = ANY (packet.client_apps) AND marked.is_drill)
           OR EXISTS (SELECT FROM campaign_campaign_client_apps AS carried
                        JOIN engine_clientapp AS marked ON marked.id = carried.clientapp_id
                       WHERE carried.campaign_id = campaign.id AND marked.is_drill) AS of_drill,
           moved.created_at
      FROM (SELECT * FROM packets_transfer
             WHERE id > %(after)s ORDER BY id LIMIT %(rows)s) AS moved
      JOIN packets_account AS giver ON giver.id = moved.debit_account_id
      JOIN packets_account AS taker ON taker.id = moved.credit_account_id
      LEFT JOIN packets_participant AS who
             ON who.digest = CASE 'wallet' WHEN taker.kind THEN decode(taker.owner, 'hex')
                                           WHEN giver.kind THEN decode(giver.owner, 'hex') END
      LEFT JOIN engine_clientapp AS app ON app.id = who.client_app_id
      LEFT JOIN packets_packet AS packet ON packet.escrow_id = CASE 'escrow'
                                           WHEN giver.kind THEN giver.id
                                           WHEN taker.kind THEN taker.id END
      LEFT JOIN campaign_campaignpacket AS part ON part.packet_id = packet.id
      LEFT JOIN campaign_campaign AS owner
             ON owner.account_id = CASE 'campaign' WHEN giver.kind THEN giver.id
                                                   WHEN taker.kind THEN taker.id END
      LEFT JOIN campaign_campaign AS campaign
             ON campaign.id = COALESCE(part.campaign_id, owner.id)
     ORDER BY moved.id
"""
# The first transfer at or after a moment is found by halving: ids follow time.
_BOUNDS = "SELECT COALESCE(min(id), 0), COALESCE(max(id), 0) FROM packets_transfer"
_AT = "SELECT id, created_at FROM packets_transfer WHERE id >= %s ORDER BY id LIMIT 1"


def _id_before(moment: dt.datetime) -> int:
    """An id below every transfer made at or after the moment."""
    moment -= dt.timedelta(seconds=OVERLAP_S)
    low, high = _read(_BOUNDS, [])[0]
    while low < high:
        middle = (low + high) // 2
        found, at = _read(_AT, [middle])[0]
        if at < moment:
            low = found + 1
        else:
            high = middle
    return int(low) - 1


def _transfers(period: Period) -> Iterator[Rows]:
    after = _id_before(period.start)
    enough = period.end + dt.timedelta(seconds=OVERLAP_S)
    while rows := _read(_TRANSFERS, {"after": after, "rows": ROWS_A_CHUNK}):
        yield [row for row in rows if period.start <= row[-1] < period.end and not row[-2]]
        after = rows[-1][0]
        if rows[-1][-1] >= enough:
            return


def _transfer_line(row: tuple[Any, ...], whole: bool) -> Sequence[Any]:
    number, reference, kind, amount, currency, *rest, packet_id, _of_drill, at = row
    return [
        number, reference, kind, INCOME_KINDS.get(kind, ""), amount, currency, *rest,
        _hex(packet_id), *_times(at),
    ]  # fmt: skip


# --- payouts --------------------------------------------------------------------------------------

PAYOUT_COLUMNS = (
    "payout", "number", "provider_account", "provider", "provider_reference", "state",
    "client_app", "user", "payee_account", "payee_name", "amount_fen", "currency", "income_kind",
    "campaign", "asked_at {zone}", "asked_at_utc", "ended_at {zone}", "ended_at_utc", "failure",
)  # fmt: skip
_PAYOUTS = """
    SELECT payout.id, payout.created_at, payout.ended_at, newest.number, account.name,
           account.kind, payout.provider_ref, payout.state, app.slug, who.subject,
           payout.payee_masked, payout.payee_encrypted, payout.amount_fen, payout.currency,
           campaign.slug, payout.failure_code
      FROM packets_payout AS payout
      JOIN packets_provideraccount AS account ON account.id = payout.account_id
      LEFT JOIN LATERAL (SELECT number FROM packets_payoutnumber
                          WHERE payout_id = payout.id ORDER BY id DESC LIMIT 1) AS newest ON true
      LEFT JOIN packets_participant AS who ON who.digest = payout.participant
      LEFT JOIN engine_clientapp AS app ON app.id = payout.client_app_id
      LEFT JOIN campaign_campaign AS campaign ON campaign.gate_id = payout.share
     WHERE {column} >= %(start)s AND {column} < %(end)s AND {further}
       AND app.is_drill IS NOT TRUE
       AND ({column}, payout.id) > (%(at)s, %(id)s)
     ORDER BY {column}, payout.id LIMIT %(rows)s
"""
_ASKED = _PAYOUTS.format(column="payout.created_at", further="true")
_PAID = _PAYOUTS.format(
    column="payout.ended_at", further="payout.state = 'paid' AND payout.account_id = %(account)s"
)


def _by_time(sql: str, period: Period, place: int, **values: Any) -> Iterator[Rows]:
    """Page by (time, id), the time being in column `place` of the rows."""
    at, last = period.start, uuid.UUID(int=0)
    while rows := _read(
        sql,
        {"start": period.start, "end": period.end, "at": at, "id": last,
         "rows": ROWS_A_CHUNK, **values},
    ):  # fmt: skip
        yield rows
        at, last = rows[-1][place], rows[-1][0]


def _payouts(period: Period) -> Iterator[Rows]:
    return _by_time(_ASKED, period, 1)


def _paid(period: Period) -> Iterator[Rows]:
    for (account_id,) in _read("SELECT id FROM packets_provideraccount ORDER BY id", []):
        yield from _by_time(_PAID, period, 2, account=account_id)


def _payout_line(row: tuple[Any, ...], whole: bool) -> Sequence[Any]:
    (payout_id, asked, ended, number, account, provider, reference, state, app, user, masked,
     encrypted, amount, currency, campaign, failure) = row  # fmt: skip
    payee = _payee(masked, encrypted, whole)
    return [
        payout_id.hex, number or "", account, provider, reference, state, app or "", user or "",
        *payee, amount, currency, INCOME_KINDS["settle"], campaign or "", *_times(asked),
        *_times(ended), failure,
    ]  # fmt: skip


def _payee(masked: str, encrypted: str, whole: bool) -> tuple[str, str]:
    """(account, name): as they were given where the whole is asked for, else masked."""
    if not masked and not encrypted:
        return "", ""  # the person was erased
    try:
        account, name = payee_of(Payout(payee_encrypted=encrypted))
    except (UnreadableSecret, ValueError, KeyError):
        return masked, UNREADABLE
    return (account, name) if whole else (masked, name[:1] + "*" * len(name[1:]))


# --- differences ----------------------------------------------------------------------------------

DIFFERENCE_COLUMNS = (
    "difference", "provider_account", "day", "class", "number", "payout", "amount_here_fen",
    "amount_there_fen", "outcome_here", "outcome_there", "found_at {zone}", "found_at_utc",
    "state", "resolution", "reason", "resolved_by", "resolved_at {zone}", "resolved_at_utc",
)  # fmt: skip
_DIFFERENCES = """
    SELECT differs.id, account.name, differs.day, differs.kind, differs.out_number,
           differs.payout_id, differs.ours_fen, differs.theirs_fen, differs.ours_state,
           differs.theirs_state, differs.found_at, differs.state, differs.resolution,
           differs.reason, differs.resolved_by, differs.resolved_at
      FROM packets_difference AS differs
      JOIN packets_provideraccount AS account ON account.id = differs.account_id
     WHERE differs.account_id = %(account)s AND differs.day = %(day)s AND differs.id > %(after)s
     ORDER BY differs.id LIMIT %(rows)s
"""


def _differences(period: Period) -> Iterator[Rows]:
    days = _read(
        "SELECT DISTINCT differs.account_id, differs.day FROM packets_difference AS differs"
        "  JOIN packets_provideraccount AS account ON account.id = differs.account_id"
        " WHERE differs.day BETWEEN %s AND %s"
        "   AND NOT EXISTS (SELECT FROM engine_clientapp AS marked"
        "                    WHERE marked.id = ANY (account.client_apps) AND marked.is_drill)"
        " ORDER BY differs.day, differs.account_id",
        [period.first, period.last],
    )
    for account_id, day in days:
        values = {"account": account_id, "day": day, "after": 0, "rows": ROWS_A_CHUNK}
        while rows := _read(_DIFFERENCES, values):
            yield rows
            values["after"] = rows[-1][0]


def _difference_line(row: tuple[Any, ...], whole: bool) -> Sequence[Any]:
    number, account, day, kind, out_number, payout_id, *rest = row
    ours, theirs, ours_state, theirs_state, found, state, resolution, reason, by, resolved = rest
    return [
        number, account, day.isoformat(), kind, out_number, _hex(payout_id), ours, theirs,
        ours_state, theirs_state, *_times(found), state, resolution, reason, by, *_times(resolved),
    ]  # fmt: skip


_FILES: dict[
    What,
    tuple[
        tuple[str, ...],
        Callable[[Period], Iterator[Rows]],
        Callable[[tuple[Any, ...], bool], Sequence[Any]],
    ],
] = {
    What.TRANSFERS: (TRANSFER_COLUMNS, _transfers, _transfer_line),
    What.PAYOUTS: (PAYOUT_COLUMNS, _payouts, _payout_line),
    What.PAID: (PAYOUT_COLUMNS, _paid, _payout_line),
    What.DIFFERENCES: (DIFFERENCE_COLUMNS, _differences, _difference_line),
}


def columns_of(what: What) -> tuple[str, ...]:
    """The header of such a file, with the zone's place open."""
    return _FILES[what][0]
