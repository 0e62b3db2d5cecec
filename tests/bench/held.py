"""Does a claim take longer where many claims are held already? The p50 at both sizes.

The claims that are held are written as rows and as records in Redis, in many lanes of one big
packet, without going through the doors. What is measured is a win on a fresh packet beside them.
Both sizes can't be there at once, so each p50 is taken against the do-nothing server's p50 of the
same round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from engine.run.postgres import SUPERUSER, PostgresServer
from loadtest.bench.table import Result, Row
from tests.bench.rig import Rig, claims_path

LANES = 64
IN_FLIGHT = 32
NEWCOMERS_A_S = 12_000
ROWS_A_CHUNK = 250_000
RECORDS_A_PIPE = 5_000

_FILL = """
INSERT INTO packets_claim (id, packet_id, lane_id, participant, serial, epoch, index, amount_fen,
                           tier, position, committed_at)
SELECT md5('claim' || n)::uuid, %(packet)s, (%(lanes)s::bigint[])[1 + n %% %(many)s],
       decode(md5('who' || n), 'hex'), 0, 1, n / %(many)s, 100, 0, 1 + n / %(many)s,
       now() - (%(last)s - n) * interval '10 microseconds'
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""


@dataclass
class Held:
    """A packet whose claims are held; `p50` measures beside them."""

    rig: Rig
    rounds: int
    seconds: float
    say: Callable[[str], None]
    filled: int = 0
    packet: Any = None
    lanes: list[Any] = field(default_factory=list)

    def fill(self, count: int) -> None:
        """Until so many claims are held."""
        if self.packet is None:
            self.packet = self.rig.packet(20_000_000, LANES, strategy="fixed")
            self.lanes = list(self.packet.lanes.order_by("number"))
        address = urlsplit(self.rig.copy.env["DATABASE_URL"])
        server = PostgresServer(self.rig.copy.places, address.port)
        database = address.path.strip("/")
        with psycopg.connect(server.url(SUPERUSER, database), autocommit=True) as link:
            # Neither triggers nor foreign keys: these rows only have to be there.
            link.execute("SET session_replication_role = replica")
            for first in range(self.filled, count, ROWS_A_CHUNK):
                last = min(first + ROWS_A_CHUNK, count) - 1
                link.execute(
                    _FILL,
                    {
                        "packet": self.packet.pk,
                        "lanes": [lane.pk for lane in self.lanes],
                        "many": LANES,
                        "first": first,
                        "last": last,
                    },
                )
                self._records(first, last)
                self.filled = last + 1
                self.say(f"claims held: {self.filled:,}")
            link.execute(
                "UPDATE packets_lane l SET claimed_count = c.n, claimed_fen = 100 * c.n FROM"
                " (SELECT lane_id, count(*) AS n FROM packets_claim WHERE packet_id = %s"
                " GROUP BY 1) c WHERE l.id = c.lane_id",
                [self.packet.pk],
            )
            link.execute(sql.SQL("VACUUM (ANALYZE) packets_claim"))
        time.sleep(1)

    def _records(self, first: int, last: int) -> None:
        from engine.lib.redis import stock as stock_client

        client = stock_client()
        records = self._each(first, last)
        while True:
            pipe = client.pipeline(transaction=False)
            for key, name, record in records:
                pipe.hset(key, name, record)
                if len(pipe) == RECORDS_A_PIPE:
                    break
            if not len(pipe):
                return
            pipe.execute()

    def _each(self, first: int, last: int) -> Iterator[tuple[str, bytes, str]]:
        """(key, field, record) as the claim script would have left them, marked."""
        import hashlib

        from engine.lib import ids
        from packets import stock
        from packets.claiming.effects import Portion

        committed_ms = int(time.time() * 1000)
        for n in range(first, last + 1):
            lane = self.lanes[n % LANES]
            who = hashlib.md5(f"who{n}".encode(), usedforsecurity=False).digest()
            key = stock.bucket_key(self.packet.pk, lane.number, ids.bucket(who, lane.buckets))
            record = stock.record(Portion(1, n // LANES, 100, 0), committed_ms)
            yield key, stock.member(who, 0), record

    def p50(self) -> list[float]:
        """Of a win beside them, as a multiple of the no-op's, round by round."""
        found = []
        for number in range(self.rounds + 1):
            people = self.rig.people(int(NEWCOMERS_A_S * self.seconds))
            packet = self.rig.packet(len(people))
            path = claims_path(packet)
            nothing = self.rig.load("noop_edge", path, people, IN_FLIGHT, self.seconds)
            wins = self.rig.load("edge", path, people, IN_FLIGHT, self.seconds, repeat=False)
            if number:  # the first one warms up
                found.append(wins.latency_ms(50) / nothing.latency_ms(50))
                self.say(
                    f"round {number}/{self.rounds}  beside {self.filled:,} claims: p50"
                    f" {wins.latency_ms(50):.1f} ms, no-op {nothing.latency_ms(50):.2f} ms"
                )
        return found


def bytes_a_claim() -> float:
    """Of disk, indexes included."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_total_relation_size('packets_claim')::float / greatest(1, count(*))"
            " FROM packets_claim"
        )
        return float(cursor.fetchone()[0])


def report(few: list[float], many: list[float], held: int, result: Result) -> None:
    result.facts["bytes of disk for one claim, indexes included"] = f"{bytes_a_claim():.0f}"
    name = f"p50 of a claim beside {held:,} claims"
    against = "the same beside 10,000"
    result.rows.append(
        Row(name, against, 1.2, False, many, few, " × no-op's p50", note="32 in flight")
    )
