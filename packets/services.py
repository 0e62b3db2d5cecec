"""What may be done to packets and gates. Each function is one business act: keyword-only, checked
first, written in one transaction, Postgres before Redis.

Bad input raises `ServiceError` and changes nothing; an act on a packet in the wrong state raises
`TransitionRefused`. States change by conditional UPDATEs that look at the row count.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
import uuid
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import redis.exceptions
import structlog
from django.db import connection, transaction
from django.db.models import ProtectedError
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib import clock
from engine.lib.audit import audit_record
from engine.lib.crypto import encrypt
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.redis import stock as stock_client
from packets import ledger, proof, recovery, splitting, stock
from packets.claiming import eligibility
from packets.claiming.registry import registry
from packets.claiming.sync import password_key
from packets.closing import packet_close, packets_expire_due
from packets.flags import flags_push, gate_push
from packets.models import (
    MAX_LANES,
    Account,
    Gate,
    Lane,
    LaneCursor,
    LaneEpoch,
    Packet,
    Transfer,
)
from packets.windows import packet_move

__all__ = [
    "gate_create",
    "gate_set",
    "packet_check",
    "packet_close",
    "packet_create",
    "packet_discard",
    "packet_extend",
    "packet_move",
    "packet_open",
    "packet_pause",
    "packet_resume",
    "packet_targets_add",
    "packet_window_set",
    "packets_expire_due",
]

log = structlog.get_logger(__name__)

SEED_BYTES = 16
# Lanes are chosen so that one lane's row lock isn't the limit of a big pool: a lane commits several
# thousand claims a second, and a pool of a million portions is claimed by many processes.
PORTIONS_PER_LANE = 62_500
MAX_WINDOW_DAYS = 400
MAX_ACCOUNT_AGE_DAYS = 36_500
WORDS_MAX_CHARS = {"name": 80, "group": 128, "password": eligibility.PASSWORD_MAX_CHARS}
TARGETS_CHUNK = 5_000
# What a draft keeps when it gets other rules.
_KEPT = frozenset({"id", "state", "created_at", "opened_at", "closed_at"})


# --- gates --------------------------------------------------------------------------------------


def gate_create(*, key: str) -> Gate:
    """A gate of this name, shut; the existing one where there is one."""
    return Gate.objects.get_or_create(key=key)[0]


def gate_set(*, gate_id: int, state: str, reason: str = "", actor: str) -> None:
    """Open, pause or close a gate: in Postgres, which every commit reads, then in Redis's flags.

    The flags only spare Postgres the asking; if Redis can't be reached they are mended by the first
    claim that meets the gate.
    """
    if state not in Gate.State.values:
        raise ServiceError(
            "state",
            "unknown_state",
            _("This must be one of %(choices)s."),
            choices=", ".join(Gate.State.values),
        )
    with transaction.atomic():
        gate = Gate.objects.select_for_update().get(id=gate_id)
        before = gate.state
        gate.state, gate.reason = state, reason
        gate.save(update_fields=["state", "reason", "changed_at"])
        audit_record(
            actor=actor,
            action=f"gate.{state}",
            object_type="gate",
            object_id=gate.key,
            before={"state": before},
            after={"state": state},
            reason=reason,
        )
        transaction.on_commit(partial(gate_push, gate))


# --- creating -----------------------------------------------------------------------------------


def packet_check(
    *,
    total_fen: int,
    count: int,
    strategy: str = "lucky",
    min_fen: int = 1,
    max_fen: int | None = None,
    evenness: int = 2,
    tiers: Sequence[tuple[int, int]] = (),
    remainder: str = "lucky",
    lane_count: int | None = None,
) -> tuple[splitting.Rules, int]:
    """The effective rules and the number of lanes, or a ServiceError that names the field."""
    for field, value in (("strategy", strategy), ("remainder", remainder)):
        if value not in Packet.Strategy.values:
            raise ServiceError(
                field,
                "unknown_strategy",
                _("This must be one of %(choices)s."),
                choices=", ".join(Packet.Strategy.values),
            )
    rules = splitting.Rules(
        strategy=splitting.Strategy(strategy),
        total_fen=total_fen,
        count=count,
        min_fen=min_fen,
        max_fen=max_fen,
        evenness=evenness,
        tiers=tuple(splitting.Tier(amount, quantity) for amount, quantity in tiers),
        remainder=splitting.Strategy(remainder),
    )
    try:
        splitting.validate(rules)
        rules = splitting.effective(rules)
        lanes = (
            lane_count
            if lane_count is not None
            else min(MAX_LANES, max(1, count // PORTIONS_PER_LANE))
        )
        if not 1 <= lanes <= min(MAX_LANES, count):
            raise ServiceError(
                "lane_count",
                "out_of_range",
                _("This must lie between 1 and %(most)s."),
                most=f"{min(MAX_LANES, count):,}",
            )
        splitting.lanes(rules, lanes)
    except splitting.SplittingError as error:
        words = error.words
        raise ServiceError(error.field, error.code, words.text, **words.values) from error
    return rules, lanes


def _check_words(**words: str) -> None:
    """Texts that a column holds: not too long, printable."""
    for field, text in words.items():
        if len(text) > WORDS_MAX_CHARS[field]:
            raise ServiceError(
                field,
                "too_long",
                _("This has at most %(most)s characters."),
                most=WORDS_MAX_CHARS[field],
            )
        if not text.isprintable():
            raise ServiceError(field, "unprintable", _("This holds a character without a shape."))


def packet_create(
    *,
    funder: Account,
    gate: Gate,
    total_fen: int,
    count: int,
    opens_at: dt.datetime,
    closes_at: dt.datetime,
    client_apps: Sequence[int],
    strategy: str = "lucky",
    min_fen: int = 1,
    max_fen: int | None = None,
    evenness: int = 2,
    tiers: Sequence[tuple[int, int]] = (),
    remainder: str = "lucky",
    lane_count: int | None = None,
    name: str = "",
    targeted: bool = False,
    group: str = "",
    new_only: bool = False,
    min_account_age_days: int = 0,
    password: str = "",
    needs_ticket: bool = False,
    packet_id: uuid.UUID | None = None,
    redraft: bool = False,
) -> Packet:
    """Write down a packet as a draft: no money moves and nobody can see it yet.

    Its seed is drawn here and its commitment fixed, over the rules in their canonical form. With
    `redraft` the draft of this id gets other rules and another seed; its list of people stays.
    """
    rules, lanes = packet_check(
        total_fen=total_fen,
        count=count,
        strategy=strategy,
        min_fen=min_fen,
        max_fen=max_fen,
        evenness=evenness,
        tiers=tiers,
        remainder=remainder,
        lane_count=lane_count,
    )
    if closes_at <= opens_at:
        raise ServiceError(
            "closes_at", "ends_before_start", _("The packet would close before it opens.")
        )
    if closes_at - opens_at > dt.timedelta(days=MAX_WINDOW_DAYS):
        raise ServiceError(
            "closes_at",
            "window_too_long",
            _("A packet is open for at most %(days)s days."),
            days=MAX_WINDOW_DAYS,
        )
    if not client_apps:
        raise ServiceError(
            "client_apps", "empty", _("Name at least one client app, or nobody can claim.")
        )
    _check_words(name=name, group=group, password=password)
    if password and not eligibility.normalise_password(password):
        raise ServiceError("password", "blank", _("A password needs more than spaces."))
    if not 0 <= min_account_age_days <= MAX_ACCOUNT_AGE_DAYS:
        raise ServiceError(
            "min_account_age_days",
            "out_of_range",
            _("This must lie between 0 and %(most)s."),
            most=MAX_ACCOUNT_AGE_DAYS,
        )
    packet_id = packet_id or uuid.uuid4()
    seed = secrets.token_bytes(SEED_BYTES)
    shares = splitting.lanes(rules, lanes, seed)
    canonical = proof.canonical_rules(packet_id.hex, rules, shares, funder.currency)
    packet = Packet(
        id=packet_id,
        name=name,
        gate=gate,
        funder=funder,
        currency=funder.currency,
        strategy=strategy,
        total_fen=rules.total_fen,
        count=rules.count,
        min_fen=rules.min_fen,
        max_fen=rules.max_fen,
        evenness=rules.evenness,
        tiers=[[tier.amount_fen, tier.quantity] for tier in rules.tiers],
        remainder=remainder,
        lane_count=lanes,
        opens_at=opens_at,
        closes_at=closes_at,
        client_apps=list(client_apps),
        targeted=targeted,
        group=group,
        new_only=new_only,
        min_account_age_days=min_account_age_days,
        password_hash=eligibility.password_digest(packet_id, password, password_key())
        if password
        else "",
        needs_ticket=needs_ticket,
        seed_encrypted=encrypt(seed),
        commitment=proof.commitment(seed, canonical),
        home_key=secrets.token_bytes(16),
    )
    if not redraft:
        packet.save(force_insert=True)
    else:
        columns = [f.attname for f in Packet._meta.concrete_fields if f.name not in _KEPT]
        changed = Packet.objects.filter(id=packet_id, state=Packet.State.DRAFT).update(
            **{column: getattr(packet, column) for column in columns}
        )
        if not changed:
            raise _refuse(packet_id, (Packet.State.DRAFT,))
        packet = Packet.objects.get(id=packet_id)
    return packet


def packet_discard(*, packet_id: uuid.UUID) -> None:
    """Forget a draft and its list of people: it never was anybody's."""
    with transaction.atomic():
        drafts = Packet.objects.select_for_update().filter(id=packet_id, state=Packet.State.DRAFT)
        if not drafts:
            raise _refuse(packet_id, (Packet.State.DRAFT,))
        try:
            drafts.delete()
        except ProtectedError as refusal:
            kinds = sorted({str(one._meta.verbose_name) for one in refusal.protected_objects})
            raise ServiceError(
                "packet",
                "in_use",
                _("This packet is still used: %(what)s."),
                what=", ".join(kinds),
            ) from refusal


def packet_window_set(
    *, packet_id: uuid.UUID, opens_at: dt.datetime, closes_at: dt.datetime, client_apps: list[int]
) -> None:
    """Another window and other apps for a draft; how it is cut stays, and so does its seed."""
    changed = Packet.objects.filter(id=packet_id, state=Packet.State.DRAFT).update(
        opens_at=opens_at, closes_at=closes_at, client_apps=client_apps
    )
    if not changed:
        raise _refuse(packet_id, (Packet.State.DRAFT,))


def packet_targets_add(*, packet_id: uuid.UUID, participants: Iterable[bytes]) -> int:
    """Put people on a targeted packet's list; returns how many weren't on it."""
    added = 0
    waiting = iter(participants)
    while chunk := list(islice(waiting, TARGETS_CHUNK)):
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO packets_packettarget (packet_id, participant)"
                " SELECT %s, unnest(%s::bytea[]) ON CONFLICT DO NOTHING",
                [packet_id, chunk],
            )
            added += cursor.rowcount
    return added


# --- life ---------------------------------------------------------------------------------------


def _refuse(packet_id: uuid.UUID, wanted: tuple[str, ...]) -> TransitionRefused:
    state = Packet.objects.values_list("state", flat=True).get(id=packet_id)
    return TransitionRefused(f"packet {packet_id.hex}", state, wanted)


def _audit(packet: Packet, action: str, actor: str, reason: str = "", **after: Any) -> None:
    audit_record(
        actor=actor,
        action=f"packet.{action}",
        object_type="packet",
        object_id=packet.id.hex,
        after={"state": packet.state, **after},
        reason=reason,
    )


def packet_open(*, packet_id: uuid.UUID, actor: str) -> Packet:
    """Move the packet's money into its escrow, cut it into lanes and offer them.

    The beacon is drawn now, when the rules and the seed are long committed, so that whoever chose
    the seed couldn't choose the portions.
    """
    with transaction.atomic():
        beacon = secrets.token_bytes(SEED_BYTES)
        opened = Packet.objects.filter(id=packet_id, state=Packet.State.DRAFT).update(
            state=Packet.State.OPEN,
            opened_at=clock.now(),
            beacon=beacon.hex(),
            beacon_commitment=hashlib.sha256(beacon).hexdigest(),
        )
        if not opened:
            raise _refuse(packet_id, (Packet.State.DRAFT,))
        packet = Packet.objects.select_related("funder").get(id=packet_id)
        if Packet.objects.filter(id=packet_id, closes_at__lte=Now()).exists():
            raise ServiceError("closes_at", "in_the_past", _("The packet's window is over."))
        lanes, epochs = _lanes_create(packet)
        escrow = ledger.account_get_or_create(
            kind=Account.Kind.ESCROW, owner=packet.id.hex, currency=packet.currency
        )
        Packet.objects.filter(id=packet_id).update(escrow=escrow)
        ledger.post(
            [
                ledger.Entry(
                    reference=f"open:{packet.id.hex}",
                    kind=Transfer.Kind.OPEN,
                    debit_account_id=packet.funder_id,
                    credit_account_id=escrow.id,
                    amount_fen=packet.total_fen,
                    currency=packet.currency,
                )
            ]
        )
        _audit(packet, "open", actor, total_fen=packet.total_fen, count=packet.count)
        transaction.on_commit(partial(_load_new, packet_id, lanes, epochs))
    packet.refresh_from_db()
    return packet


def _lanes_create(packet: Packet) -> tuple[list[Lane], list[LaneEpoch]]:
    shares = stock.shares_of(packet)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")  # whose clock leases go by
        lease = cursor.fetchone()[0] + dt.timedelta(seconds=recovery.LOADER_LEASE_S)
    loader = uuid.uuid4()
    lanes = Lane.objects.bulk_create(
        Lane(
            packet=packet,
            number=number,
            total_fen=share.total_fen,
            count=share.count,
            tiers=list(share.tiers),
            buckets=stock.buckets_for(share.count),
            epoch=1,
            loader=loader,
            loader_until=lease,
        )
        for number, share in enumerate(shares)
    )
    LaneCursor.objects.bulk_create(LaneCursor(lane=lane) for lane in lanes)
    epochs = LaneEpoch.objects.bulk_create(
        LaneEpoch(
            lane=lane,
            epoch=1,
            left_fen=lane.total_fen,
            left_count=lane.count,
            tiers_left=lane.tiers,
            cause=LaneEpoch.Cause.OPENED,
        )
        for lane in lanes
    )
    return lanes, epochs


def _load_new(packet_id: uuid.UUID, lanes: list[Lane], epochs: list[LaneEpoch]) -> None:
    registry.forget(packet_id)
    try:
        begun = list(zip(lanes, epochs, strict=True))
        packet = Packet.objects.get(id=packet_id)
        opened = recovery.finish_epochs(stock_client(), packet, begun, stock.Claimants.FULL)
        for lane, epoch in begun:
            if lane.id not in opened:
                # Redis holds a higher epoch of another life of this packet: go above it.
                Lane.objects.filter(id=lane.id).update(loader_until=None)
                recovery.rebuild(stock_client(), lane_id=lane.id, seen_epoch=epoch.epoch)
    except redis.exceptions.RedisError as error:
        # The packet is open in Postgres; its first claim, or the sweep, loads what is missing.
        log.warning("packet_not_loaded", packet=packet_id.hex, error=type(error).__name__)


def _switch(packet_id: uuid.UUID, old: str, new: str, actor: str, reason: str) -> Packet:
    with transaction.atomic():
        if not Packet.objects.filter(id=packet_id, state=old).update(state=new):
            raise _refuse(packet_id, (old,))
        packet = Packet.objects.get(id=packet_id)
        _audit(packet, "pause" if new == Packet.State.PAUSED else "resume", actor, reason)
        transaction.on_commit(partial(flags_push, packet_id))
    return packet


def packet_pause(*, packet_id: uuid.UUID, actor: str, reason: str = "") -> Packet:
    return _switch(packet_id, Packet.State.OPEN, Packet.State.PAUSED, actor, reason)


def packet_resume(*, packet_id: uuid.UUID, actor: str, reason: str = "") -> Packet:
    return _switch(packet_id, Packet.State.PAUSED, Packet.State.OPEN, actor, reason)


def packet_extend(*, packet_id: uuid.UUID, closes_at: dt.datetime, actor: str) -> Packet:
    """Move the end of an open packet further away; the other direction would break a promise."""
    wanted = (Packet.State.OPEN, Packet.State.PAUSED)
    with transaction.atomic():
        packet = Packet.objects.get(id=packet_id)
        if closes_at - packet.opens_at > dt.timedelta(days=MAX_WINDOW_DAYS):
            raise ServiceError(
                "closes_at",
                "window_too_long",
                _("A packet is open for at most %(days)s days."),
                days=MAX_WINDOW_DAYS,
            )
        moved = Packet.objects.filter(id=packet_id, state__in=wanted, closes_at__lt=closes_at)
        if not moved.update(closes_at=closes_at):
            raise _refuse(packet_id, wanted)
        packet.refresh_from_db()
        _audit(packet, "extend", actor, closes_at=closes_at.isoformat())
        transaction.on_commit(partial(flags_push, packet_id))
    return packet
