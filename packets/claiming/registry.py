"""What a process remembers of packets, for a second: where the lanes are, for whom, and whether it
is over. Also which ids are unknown, so that random ids cost no lock and no rebuild.

Nothing remembered here lets anybody win, and `final` only repeats what Postgres has shown. A packet
that hasn't opened is remembered until its opening at the longest, by Postgres's clock: so a crowd
that waits for it is answered from memory, and every process opens it at the same moment.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field

from django.db.models import Count, Q, Sum
from django.db.models.functions import Now

from engine.models import ForcedOutcome
from packets.blocking import blocked_before
from packets.claiming.effects import Audience, Forced, PacketView, Reason, Result
from packets.claiming.limits import Rule
from packets.models import Gate, LimitRule, Packet

# Growing clears an exhausted mark by this much delay at worst; staff's edits arrive as fast.
LIFETIME_S = 1.0
MAX_PACKETS = 10_000  # views kept by one process
MAX_TEST_USERS = 1_000  # of one packet's apps together; staff can't make more for one app
MAX_UNKNOWN = 10_000  # unknown ids remembered by one process


@dataclass
class Registry:
    lifetime_s: float = LIFETIME_S
    # By packet: until when it may be shown (monotonic), and what.
    _views: OrderedDict[uuid.UUID, tuple[float, PacketView | None]] = field(
        default_factory=OrderedDict
    )
    _pushed: dict[uuid.UUID, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def view(self, packet_id: uuid.UUID) -> PacketView | None:
        """The packet as seen within the last second; None where there is none to be claimed."""
        now = time.monotonic()
        with self._lock:
            known = self._views.get(packet_id)
        if known is not None and now < known[0]:
            return known[1]
        view = read(packet_id)
        # Counted from before the reading: Postgres's clock may have shown no earlier moment.
        lifetime_s = self.lifetime_s
        if view is not None and view.opens_in_s is not None:
            lifetime_s = min(lifetime_s, view.opens_in_s)
        with self._lock:
            self._views[packet_id] = (now + lifetime_s, view)
            self._views.move_to_end(packet_id)
            while len(self._views) > MAX_PACKETS + MAX_UNKNOWN:
                self._views.popitem(last=False)
        return view

    def peek(self, packet_id: uuid.UUID) -> tuple[bool, PacketView | None]:
        """(whether what is remembered is fresh, the view), without reading anything."""
        known = self._views.get(packet_id)
        fresh = known is not None and time.monotonic() < known[0]
        return (True, known[1]) if fresh and known is not None else (False, None)

    def may_push(self, packet_id: uuid.UUID) -> bool:
        """Whether the packet's flags weren't pushed within the last second; says yes once."""
        now = time.monotonic()
        with self._lock:
            if now - self._pushed.get(packet_id, 0.0) < self.lifetime_s:
                return False
            if len(self._pushed) >= MAX_PACKETS:
                self._pushed.clear()
            self._pushed[packet_id] = now
        return True

    def forget(self, packet_id: uuid.UUID | None = None) -> None:
        with self._lock:
            if packet_id is None:
                self._views.clear()
                self._pushed.clear()
            else:
                self._views.pop(packet_id, None)


def read(packet_id: uuid.UUID) -> PacketView | None:
    """The packet from Postgres. A draft isn't there for anybody yet."""
    packet = (
        Packet.objects.exclude(state=Packet.State.DRAFT)
        .filter(id=packet_id)
        .annotate(read_at=Now())
        .first()
    )
    if packet is None:
        return None
    lanes = list(packet.lanes.order_by("number").values_list("id", "buckets"))
    sums = packet.lanes.aggregate(
        count=Sum("count"),
        claimed=Sum("claimed_count"),
        closed=Count("id", filter=Q(state="closed")),
    )
    left_count = sums["count"] - sums["claimed"]
    exhausted = left_count <= 0
    closed = packet.state == Packet.State.CLOSED and sums["closed"] == len(lanes)
    state = state_of(packet, exhausted=exhausted, moment=packet.read_at)
    waits = state == "scheduled" and not sums["claimed"]
    return PacketView(
        id=packet.id,
        lane_ids=tuple(lane_id for lane_id, _ in lanes),
        home_key=bytes(packet.home_key),
        currency=packet.currency,
        audience=Audience(
            client_apps=frozenset(packet.client_apps),
            targeted=packet.targeted,
            group=packet.group,
            new_only=packet.new_only,
            min_account_age_days=packet.min_account_age_days,
            password_hash=packet.password_hash,
        ),
        buckets=tuple(buckets for _, buckets in lanes),
        total_count=sums["count"],
        left_count=max(0, left_count),
        state=state,
        final=Result.SOLD_OUT if exhausted else Result.ENDED if closed else None,
        forced=forced_of(packet.client_apps),
        sample_fen=max(1, packet.total_fen // packet.count),
        opens_at=packet.opens_at,
        opens_in_s=(packet.opens_at - packet.read_at).total_seconds() if waits else None,
        needs_ticket=packet.needs_ticket,
        gate=packet.gate_id,
        limits=limits_of(packet),
        blocked=blocked_before(packet.gate_id),
    )


def limits_of(packet: Packet) -> tuple[Rule, ...]:
    """The rules that stand before the packet: everybody's, its campaign's, and its own."""
    rows = LimitRule.objects.filter(
        Q(gate=None, packet=None) | Q(gate_id=packet.gate_id) | Q(packet=packet), is_active=True
    ).order_by("id")
    return tuple(row.rule for row in rows)


def forced_of(client_apps: list[int]) -> dict[tuple[int, str], Forced]:
    """The test users of these apps, where the apps allow any."""
    rows = ForcedOutcome.objects.filter(
        client_app_id__in=client_apps, client_app__test_users_allowed=True
    ).values_list("client_app_id", "subject", "result", "reason")
    return {
        (app, subject): Forced(Result(result), Reason(reason) if reason else None)
        for app, subject, result, reason in rows[:MAX_TEST_USERS]
    }


def state_of(packet: Packet, *, exhausted: bool, moment: dt.datetime) -> str:
    """The packet's state as people see it: scheduled, open, paused, sold_out or closed."""
    if packet.state == Packet.State.CLOSED:
        return "closed"
    if exhausted:
        return "sold_out"
    shut = Gate.objects.filter(Q(id=packet.gate_id) | Q(key=Gate.ALL)).exclude(
        state=Gate.State.OPEN
    )
    if packet.state == Packet.State.PAUSED or shut.exists():
        return "paused"
    return "scheduled" if packet.opens_at > moment else "open"


registry = Registry()
