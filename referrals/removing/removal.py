"""Removes a drill: all its rows and keys, a little at a time, and nothing else.

Only the tables' owner can (`referrals/sql/removing.sql`), and only what hangs on a client app that
bears the mark of a drill. Invariants: nothing is removed that a real row refers to or shares money
with (looked at before anything goes); each transaction is small; whoever is killed in between goes
on where it stopped when it is started again, since what says whose a row is goes last.

While it runs the money check names rows of the drill: books are half of what they were. Afterwards
it holds as before.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import connection, transaction

from campaign.convergence import campaign_converge
from campaign.models import Campaign
from campaign.services import campaign_kill
from engine.lib.audit import audit_record
from engine.lib.redis import stock as stock_client
from engine.models import ClientApp
from packets import stock
from packets.models import Lane, Packet
from packets.rebalancing import served_key, wanted_key
from packets.services import packet_close
from packets.settlement import settle_lane
from referrals.removing.plan import PLAN, Rows

ACTOR = "command:drill_remove"
BATCH_ROWS = 2_000  # of a transaction: some tens of milliseconds
STATEMENT_TIMEOUT_MS = 120_000  # finding the drill's people reads all people once
LOCK_TIMEOUT_MS = 10_000
# A provider's call that is under way ends by itself within its lease; then nobody has the payout.
CALLS_PATIENCE_S = 90.0
LOOK_EVERY_S = 0.5

_PEOPLE = """
CREATE TEMPORARY TABLE removed_people (digest bytea PRIMARY KEY);
INSERT INTO removed_people
SELECT digest FROM packets_participant WHERE client_app_id = %(app)s
 UNION SELECT participant FROM referrals_sharelink WHERE campaign_id = %(campaign)s
 UNION SELECT invitee FROM referrals_referral WHERE campaign_id = %(campaign)s;
CREATE TEMPORARY TABLE removed_packets (id uuid PRIMARY KEY);
INSERT INTO removed_packets
SELECT id FROM packets_packet WHERE client_apps = ARRAY[%(app)s::bigint];
CREATE TEMPORARY TABLE removed_lanes (id bigint PRIMARY KEY);
INSERT INTO removed_lanes
SELECT lane.id FROM packets_lane AS lane JOIN removed_packets AS gone ON gone.id = lane.packet_id;
CREATE TEMPORARY TABLE removed_accounts (id bigint PRIMARY KEY);
INSERT INTO removed_accounts
SELECT account_id FROM campaign_campaign WHERE id = %(campaign)s
 UNION SELECT packet.escrow_id FROM packets_packet AS packet
         JOIN removed_packets AS gone ON gone.id = packet.id WHERE packet.escrow_id IS NOT NULL
 UNION SELECT account.id FROM removed_people AS person
         JOIN packets_account AS account ON account.owner = encode(person.digest, 'hex')
          AND account.kind IN ('wallet', 'held')
 UNION SELECT account.id FROM packets_account AS account
        WHERE account.kind = 'external' AND account.owner = 'drill:' || %(app)s
 UNION SELECT account.id FROM packets_provideraccount AS rail
         JOIN packets_account AS account ON account.owner = rail.name
          AND account.kind = 'clearing' WHERE rail.client_apps = ARRAY[%(app)s::bigint];
ANALYZE removed_people; ANALYZE removed_packets; ANALYZE removed_lanes; ANALYZE removed_accounts;
"""
_TABLES = "removed_people, removed_packets, removed_lanes, removed_accounts"

# What must find nothing: each row of these would join the drill with somebody real.
_TIES = {
    "its campaign is carried by another app, or its app by another campaign": """
SELECT 1 FROM campaign_campaign_client_apps
 WHERE (campaign_id = %(campaign)s) <> (clientapp_id = %(app)s)
   AND (campaign_id = %(campaign)s OR clientapp_id = %(app)s)""",
    "a packet of its campaign is claimed by people of another app": """
SELECT 1 FROM campaign_campaignpacket
 WHERE campaign_id = %(campaign)s AND packet_id NOT IN (SELECT id FROM removed_packets)""",
    "one of its packets belongs to another campaign": """
SELECT 1 FROM campaign_campaignpacket
 WHERE packet_id IN (SELECT id FROM removed_packets) AND campaign_id <> %(campaign)s""",
    "money went from or to an account that isn't the drill's": """
SELECT 1 FROM packets_transfer AS moved
  JOIN removed_accounts AS own ON own.id = moved.debit_account_id
 WHERE moved.credit_account_id NOT IN (SELECT id FROM removed_accounts)
 UNION ALL
SELECT 1 FROM packets_transfer AS moved
  JOIN removed_accounts AS own ON own.id = moved.credit_account_id
 WHERE moved.debit_account_id NOT IN (SELECT id FROM removed_accounts)""",
    "somebody of another app won in it": """
SELECT 1 FROM packets_claim AS claim JOIN removed_lanes AS own ON own.id = claim.lane_id
 WHERE claim.participant NOT IN (SELECT digest FROM removed_people)""",
    "one of its people won somewhere else": """
SELECT 1 FROM packets_claim AS claim JOIN removed_people AS own ON own.digest = claim.participant
 WHERE claim.lane_id NOT IN (SELECT id FROM removed_lanes)""",
    "somebody of another app shares it": """
SELECT 1 FROM referrals_sharelink
 WHERE campaign_id = %(campaign)s AND client_app_id <> %(app)s
 UNION ALL
SELECT 1 FROM referrals_referral
 WHERE campaign_id = %(campaign)s AND client_app_id <> %(app)s""",
    "one of its people shares another campaign": """
SELECT 1 FROM referrals_sharelink AS link
  JOIN removed_people AS own ON own.digest = link.participant
 WHERE link.campaign_id <> %(campaign)s""",
    "one of its people was paid by an account of real providers": """
SELECT 1 FROM packets_payout AS payout JOIN removed_people AS own ON own.digest = payout.participant
  JOIN packets_provideraccount AS rail ON rail.id = payout.account_id
 WHERE payout.client_app_id <> %(app)s OR rail.client_apps <> ARRAY[%(app)s::bigint]""",
}


class RemovalRefused(Exception):
    """Nothing, or nothing more, was removed; the words say why."""


@dataclass(frozen=True, slots=True)
class DrillScope:
    """What is removed. `campaign`: None where an earlier run has taken it away already."""

    app: int
    slug: str
    campaign: uuid.UUID | None

    @property
    def values(self) -> dict[str, Any]:
        return {"app": self.app, "slug": self.slug, "campaign": self.campaign or uuid.UUID(int=0)}


Progress = Callable[[str, int], None]


def scope_of(slug: str) -> DrillScope:
    """The drill of this campaign; RemovalRefused where there is none, or where it is real."""
    campaign = Campaign.objects.filter(slug=slug).first()
    if campaign is None:
        # The app of a drill is called like its campaign, and goes last.
        app = ClientApp.objects.filter(slug=slug, is_drill=True).first()
        if app is None:
            raise RemovalRefused(f"there is no drill {slug!r}")
        return DrillScope(app.pk, slug, None)
    apps = list(campaign.client_apps.all())
    if len(apps) != 1 or not apps[0].is_drill:
        raise RemovalRefused(f"{slug} is a campaign of real people: nothing of it is removed")
    return DrillScope(apps[0].pk, apps[0].slug, campaign.pk)


def drill_counts(scope: DrillScope) -> dict[str, int]:
    """How many rows of each table would go; RemovalRefused where something real hangs on it."""
    _begin(scope)
    _refuse_ties(scope)
    counts: dict[str, int] = {}
    for entry in PLAN:
        for one in entry if isinstance(entry, tuple) else (entry,):
            sql = f"SELECT count(*) FROM {one.table} AS t WHERE {one.where}"
            counts[one.table] = counts.get(one.table, 0) + int(_value(sql, scope))
    return {table: count for table, count in counts.items() if count}


def drill_remove(scope: DrillScope, *, progress: Progress) -> dict[str, int]:
    """Bring the drill to rest, then remove all of it; how many rows of each table went."""
    _begin(scope)
    _refuse_ties(scope)
    _audit(scope, "begin", None)
    _rest(scope)
    # What came in until it was at rest.
    _begin(scope)
    _refuse_ties(scope)
    _forget_stock()
    removed: dict[str, int] = {}
    for entry in PLAN:
        steps = entry if isinstance(entry, tuple) else (entry,)
        last = steps[-1].table == ClientApp._meta.db_table
        while gone := _batch(scope, steps, removed if last else None):
            for table, count in gone.items():
                removed[table] = removed.get(table, 0) + count
                progress(table, removed[table])
    return removed


def _batch(
    scope: DrillScope, steps: tuple[Rows, ...], final: dict[str, int] | None
) -> dict[str, int]:
    """One transaction; `final`: with the audit log's word about the whole."""
    gone = {}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('laisee.removing', %s, true)", [str(scope.app)])
        for step in steps:
            limit = f"LIMIT {BATCH_ROWS}" if len(steps) == 1 else ""
            order = f"ORDER BY {step.order}" if step.order else ""
            cursor.execute(
                f"DELETE FROM {step.table} WHERE ctid = ANY (ARRAY("
                f"SELECT t.ctid FROM {step.table} AS t WHERE {step.where} {order} {limit}))",
                scope.values,
            )
            if cursor.rowcount:
                gone[step.table] = cursor.rowcount
        if gone and final is not None:
            _audit(scope, "remove", {**final, **gone})
    return gone


# --- before anything goes -------------------------------------------------------------------------


def _begin(scope: DrillScope) -> None:
    """Whose rows they are, in tables of this session; by key wherever there is one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_has_role(session_user, relowner, 'USAGE') FROM pg_class"
            " WHERE oid = 'packets_transfer'::regclass"
        )
        if not cursor.fetchone()[0]:
            raise RemovalRefused("only the owner of the tables removes a drill")
        cursor.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(f"DROP TABLE IF EXISTS {_TABLES}")
        cursor.execute(_PEOPLE, scope.values)


def _refuse_ties(scope: DrillScope) -> None:
    for words, sql in _TIES.items():
        if _value(f"SELECT count(*) FROM ({sql}) AS tie", scope):
            raise RemovalRefused(f"{scope.slug} can't be removed: {words}")


def _rest(scope: DrillScope) -> None:
    """Nothing of it is claimed, settled or paid any more: nobody writes what is removed."""
    if scope.campaign is not None:
        campaign = Campaign.objects.get(pk=scope.campaign)
        if campaign.state in (Campaign.State.LIVE, Campaign.State.PAUSED):
            campaign_kill(campaign_id=campaign.pk, actor=ACTOR, reason="the drill is removed")
        campaign_converge(campaign_id=campaign.pk, actor=ACTOR)
    ClientApp.objects.filter(pk=scope.app).update(active=False)
    for packet_id in Packet.objects.filter(
        client_apps=[scope.app], state__in=(Packet.State.OPEN, Packet.State.PAUSED)
    ).values_list("id", flat=True):
        packet_close(packet_id=packet_id, actor=ACTOR, reason="the drill is removed")
    # Of a lane without a cursor the claims are gone already: an earlier run was killed there.
    lanes = Lane.objects.filter(packet__client_apps=[scope.app], cursor__isnull=False)
    for lane_id in lanes.values_list("id", flat=True):
        # Whoever else settles it ends within its own statement's time.
        _until(partial(_is_settled, lane_id), "its claims aren't settled")
    _until(lambda: _payouts_parked(scope), "a call to the sandbox is under way")


def _is_settled(lane_id: int) -> bool:
    result = settle_lane(lane_id)
    return not result.left and not result.busy


def _payouts_parked(scope: DrillScope) -> bool:
    """Those whose call isn't under way are taken out of the queue; whether that is all of them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE packets_payout AS payout"
            "   SET next_attempt_at = NULL, manual_reason = 'review', manual_at = now()"
            "  FROM removed_people AS person"
            " WHERE payout.participant = person.digest AND payout.ended_at IS NULL"
            "   AND COALESCE(payout.lease_until, '-infinity') < clock_timestamp()"
        )
    left = (
        "SELECT count(*) FROM packets_payout AS payout"
        " JOIN removed_people AS person ON person.digest = payout.participant"
        " WHERE payout.ended_at IS NULL AND payout.next_attempt_at IS NOT NULL"
    )
    return not _value(left, scope)


def _until(condition: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + CALLS_PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RemovalRefused(f"{why}: run it again later")
        time.sleep(LOOK_EVERY_S)


def _forget_stock() -> None:
    """The keys first: once the lanes are gone nobody knows their names."""
    client = stock_client()
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM removed_packets")
        packets = [row[0] for row in cursor.fetchall()]
    for packet_id in packets:
        for lane in Lane.objects.filter(packet_id=packet_id):
            stock.forget(client, packet_id, lane)
        client.unlink(wanted_key(packet_id))
        client.unlink(served_key(packet_id))


# --- inside ---------------------------------------------------------------------------------------


def _value(sql: str, scope: DrillScope) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, scope.values)
        return cursor.fetchone()[0]


def _audit(scope: DrillScope, act: str, after: dict[str, int] | None) -> None:
    audit_record(
        actor=ACTOR,
        action=f"drill.{act}",
        object_type="drill",
        object_id=scope.slug,
        after=after,
    )
