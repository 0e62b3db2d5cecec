"""Who met an empty lane in this process, gathered for the next move of portions.

It never keeps anybody waiting, and what it holds may be lost: people ask again after a second.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import redis.exceptions
import structlog
from django.db import Error as DatabaseError
from django.db import connections

from engine.lib.redis import stock as stock_client
from packets import rebalancing
from packets.rebalancing import Moved

log = structlog.get_logger(__name__)

GATHER_S = 0.25  # those who come in the meantime share a move
ATTEMPTS = 8  # for those who asked, while other processes make moves or hold the lanes
MAX_AT_ONCE = 4  # packets that one process asks for; the others' people ask again in a second


@dataclass
class Demand:
    """What the people of one process ask for; it never keeps them waiting.

    The first who meets a packet's lane empty starts a thread. It gathers the others for a moment,
    moves, and goes on as long as people ask. Bounded: one for a packet, MAX_AT_ONCE in all.
    """

    _asks: dict[uuid.UUID, Counter[int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, packet_id: uuid.UUID, lane_number: int) -> None:
        with self._lock:
            asks = self._asks.get(packet_id)
            if asks is not None:
                asks[lane_number] += 1
                return
            if len(self._asks) >= MAX_AT_ONCE:
                return
            self._asks[packet_id] = Counter([lane_number])
        threading.Thread(
            target=self._serve, args=(packet_id,), name="rebalance", daemon=True
        ).start()

    def _serve(self, packet_id: uuid.UUID) -> None:
        attempts = 0
        try:
            while True:
                time.sleep(GATHER_S)
                with self._lock:
                    asks = self._asks[packet_id]
                    if not asks and not attempts:
                        del self._asks[packet_id]
                        return
                    self._asks[packet_id] = Counter()
                attempts = ATTEMPTS if asks else attempts - 1
                if self._try(packet_id, asks) is not Moved.NOT_NOW:
                    attempts = 0
        except BaseException:
            with self._lock:
                self._asks.pop(packet_id, None)  # or nobody would ask for this packet again
            raise
        finally:
            connections.close_all()

    def _try(self, packet_id: uuid.UUID, asks: Mapping[int, int]) -> Moved:
        try:
            client = stock_client()
            if asks:
                rebalancing.note(client, packet_id, asks)
            return rebalancing.rebalance(client, packet_id=packet_id)
        except (redis.exceptions.RedisError, DatabaseError) as error:
            connections.close_all()
            # People ask again in a second, and so does the sweep.
            log.warning("not_rebalanced", packet=packet_id.hex, error=type(error).__name__)
            return Moved.NOTHING


@cache
def of_process() -> Demand:
    """This process's."""
    return Demand()
