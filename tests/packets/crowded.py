"""A packet that has given very many portions already, and a loader of claimants to be killed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import psycopg
from django.conf import settings

from engine.lib.auth import Caller
from engine.run.paths import CHECKOUT
from packets.models import Packet
from tests import world

PORTION_FEN = 100

# Distinct people at home in the lanes that claim, in the order of their positions. Written past the
# triggers, because committing a million claims one batch after the other takes a minute.
_FILL = """
WITH someone AS (
    SELECT n, substring(sha256(convert_to('old' || n, 'UTF8')) FROM 1 FOR 16) AS participant
      FROM generate_series(1, %(claims)s) AS n
), placed AS (
    SELECT s.participant, l.id AS lane_id, l.epoch,
           row_number() OVER (PARTITION BY l.id ORDER BY s.n) AS position
      FROM someone s
      JOIN packets_packet p ON p.id = %(packet)s
      JOIN packets_lane l ON l.packet_id = p.id
       AND l.number = laisee_home_lane(p.home_key, s.participant, p.lane_count)
)
INSERT INTO packets_claim (id, packet_id, lane_id, participant, serial, epoch, index, amount_fen,
                           tier, position, committed_at)
SELECT laisee_claim_id(%(packet)s, participant, 0), %(packet)s, lane_id, participant, 0, epoch,
       position - 1, %(fen)s, 0, position, date_trunc('milliseconds', clock_timestamp())
  FROM placed ORDER BY lane_id, position
"""
_COUNT = """
UPDATE packets_lane l SET claimed_count = c.number, claimed_fen = c.number * %(fen)s
  FROM (SELECT lane_id, count(*) AS number FROM packets_claim WHERE packet_id = %(packet)s
         GROUP BY lane_id) c
 WHERE c.lane_id = l.id
"""


def crowded_packet(superuser_dsn: str, claims: int, lane_count: int = 1) -> Packet:
    """An open packet of equal portions with so many claims, and as many portions again left."""
    count = 2 * claims
    packet = world.open_packet(PORTION_FEN * count, count, strategy="fixed", lane_count=lane_count)
    names = {"packet": packet.id, "claims": claims, "fen": PORTION_FEN}
    with psycopg.connect(superuser_dsn) as link:
        link.execute("SET session_replication_role = replica")
        link.execute(_FILL, names)
        link.execute(_COUNT, names)
    with psycopg.connect(superuser_dsn, autocommit=True) as link:
        link.execute("ANALYZE packets_claim")
    return packet


def old_winner(number: int) -> Caller:
    """Who claimed as the n-th (1, 2, 3, …)."""
    digest = hashlib.sha256(f"old{number}".encode()).digest()[:16]
    return Caller(client_app_id=world.APP, subject=f"old{number}", participant=digest)


_LOADER = """
import os, sys, time
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "engine.settings"
django.setup()
from engine.lib.redis import stock
from packets import claimants
claimants.CHUNK = int(sys.argv[1])
while claimants.load_due(client=stock(), sleep=lambda s: time.sleep(max(s, float(sys.argv[2])))):
    pass
"""


def start_loader(chunk: int, rest_s: float = 0.0) -> subprocess.Popen[bytes]:
    """A process that loads claimants into this test's stock, as a worker does."""
    return subprocess.Popen(
        [sys.executable, "-c", _LOADER, str(chunk), str(rest_s)],
        cwd=CHECKOUT,
        env={**os.environ, "REDIS_URL": settings.REDIS_URL},
        stdin=subprocess.DEVNULL,
    )
