"""Packets that people send from their own wallets: to a chat group, or to whoever knows the id.

Such a packet is one like any other, with the sender's wallet as its funder: what nobody claims goes
back there when it closes, and the invariants judge it as they judge a campaign's. What is written
down beside it (`PeoplePacket`) says who sent it, with which words, and by which Idempotency-Key:
that row is of the transaction that moves the money, so one key never sends twice, also after the
record of its answer is gone. All of them stand behind one gate, with which staff stop them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from engine.lib.auth import Caller
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.money import yuan
from engine.lib.problem import IdempotencyKeySpent
from packets import ledger, services
from packets.models import Account, Block, Gate, Lane, Packet, Participant, PeoplePacket
from packets.wallets import one_at_a_time, wallet_of, young_fen

GATE = "people"
KINDS = (Packet.Strategy.LUCKY, Packet.Strategy.FIXED)
# A chat group has at most that many people; a larger crowd is a campaign's.
MAX_COUNT = 500
# ¥20,000, a hundred times WeChat's ¥200: enough for a wedding, and a typing error stays affordable.
MAX_TOTAL_FEN = 2_000_000
MESSAGE_MAX_CHARS = 80
# Seconds. Shorter, and it would be over before the group has seen it; longer, and money that was
# meant for others would lie there for nobody.
MIN_EXPIRES_IN_S = 60
MAX_EXPIRES_IN_S = 24 * 3600
# Packets of one sender that still have portions: each costs rows and keys in Redis.
MAX_OPEN = 100
# Redis judges the start by its own server's clock, which may lie behind that of Postgres.
HEAD_START = dt.timedelta(seconds=10)
_ZERO_WIDTH_JOINER = "\u200d"  # holds the families among the emoji together


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to send. `expires_in_s` None: for as long as may be."""

    kind: str
    total_fen: int
    count: int
    message: str = ""
    expires_in_s: int | None = None


def people_packet_create(*, sender: Caller, wanted: Wanted, key: str) -> Packet:
    """Take the money out of the sender's wallet and offer it, at once and in one transaction.

    `key` is the Idempotency-Key; IdempotencyKeySpent where it has sent something before. Raises
    ServiceError that names the field, or TransitionRefused while staff have stopped all of them;
    then nothing has changed.
    """
    check(wanted)
    with transaction.atomic():
        one_at_a_time(sender.participant)
        if PeoplePacket.objects.filter(participant=sender.participant, key=key).exists():
            raise IdempotencyKeySpent
        gate = _open_gate()
        _require_not_blocked(sender.participant)
        wallet = wallet_of(sender.participant)
        if wallet is None or wallet.balance_fen < wanted.total_fen:
            raise _too_little()
        _require_old_money(wallet, wanted.total_fen)
        _require_few_open(wallet)
        packet = _draft(sender, wanted, wallet, gate)
        _write_down(sender, wanted, packet, key)
        try:
            return services.packet_open(
                packet_id=packet.id, actor=f"client:{sender.participant.hex()}"
            )
        except ledger.InsufficientFunds as error:
            raise _too_little() from error


def check(wanted: Wanted) -> None:
    """Raises ServiceError that names the first field that can't be."""
    least_fen = int(settings.PEOPLE_PORTION_MIN_FEN)
    if wanted.kind not in KINDS:
        raise ServiceError(
            "kind",
            "unknown_choice",
            _("This must be one of %(choices)s."),
            choices=", ".join(KINDS),
        )
    _require_between("count", wanted.count, 1, MAX_COUNT)
    _require_between("total_fen", wanted.total_fen, 1, MAX_TOTAL_FEN)
    if wanted.total_fen < wanted.count * least_fen:
        raise ServiceError(
            "total_fen",
            "portions_too_small",
            _("Each of %(count)s portions must be at least %(least)s."),
            count=wanted.count,
            least=yuan(least_fen),
        )
    if wanted.expires_in_s is not None:
        _require_between("expires_in_s", wanted.expires_in_s, MIN_EXPIRES_IN_S, MAX_EXPIRES_IN_S)
    if len(wanted.message) > MESSAGE_MAX_CHARS:
        raise ServiceError(
            "message",
            "too_long",
            _("This has at most %(most)s characters."),
            most=MESSAGE_MAX_CHARS,
        )
    if not wanted.message.replace(_ZERO_WIDTH_JOINER, "").isprintable():
        raise ServiceError("message", "unprintable", _("This holds a character without a shape."))


# --- one packet -----------------------------------------------------------------------------------


def _require_between(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ServiceError(
            field,
            "out_of_range",
            _("This must lie between %(least)s and %(most)s."),
            least=f"{low:,}",
            most=f"{high:,}",
        )


def _too_little() -> ServiceError:
    return ServiceError(
        "total_fen", "insufficient_funds", _("There is less than that in the wallet.")
    )


def _open_gate() -> Gate:
    """Nobody's money is taken for a packet that nobody could claim."""
    gates = {gate.key: gate for gate in Gate.objects.filter(key__in=[GATE, Gate.ALL])}
    for gate in gates.values():
        if gate.state != Gate.State.OPEN:
            raise TransitionRefused(str(_("Sending packets")), gate.state, (Gate.State.OPEN,))
    return gates[GATE]


def _require_not_blocked(participant: bytes) -> None:
    """Whoever is banned everywhere passes nothing on; their open packets were paused by the ban."""
    if Block.objects.filter(gate__key__in=[GATE, Gate.ALL], participant=participant).exists():
        raise ServiceError("", "blocked", _("You can't send packets any more."))


def _draft(sender: Caller, wanted: Wanted, wallet: Account, gate: Gate) -> Packet:
    now = _moment()
    lasts_s = MAX_EXPIRES_IN_S if wanted.expires_in_s is None else wanted.expires_in_s
    return services.packet_create(
        funder=wallet,
        gate=gate,
        total_fen=wanted.total_fen,
        count=wanted.count,
        strategy=wanted.kind,
        min_fen=int(settings.PEOPLE_PORTION_MIN_FEN),
        opens_at=now - HEAD_START,
        closes_at=now + dt.timedelta(seconds=lasts_s),
        client_apps=[sender.client_app_id],
        group=sender.group,
        lane_count=1,
    )


def _moment() -> dt.datetime:
    """By Postgres's clock, which commits and the end of windows are judged by."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: dt.datetime = cursor.fetchone()[0]
    return moment


def _write_down(sender: Caller, wanted: Wanted, packet: Packet, key: str) -> None:
    # So that those who are shown the packet can be told, masked, whose it is.
    Participant.objects.bulk_create(
        [
            Participant(
                digest=sender.participant,
                client_app_id=sender.client_app_id,
                subject=sender.subject,
            )
        ],
        ignore_conflicts=True,
    )
    PeoplePacket.objects.create(
        packet=packet, participant=sender.participant, key=key, message=wanted.message
    )


def _require_old_money(wallet: Account, total_fen: int) -> None:
    """Money on its way through: whoever runs many accounts would pass it on before a review.

    What is spent counts as the oldest that was there, so whatever is young must be left.
    """
    hours = int(settings.PEOPLE_MONEY_AGE_H)
    if hours and wallet.balance_fen - total_fen < young_fen(wallet, hours):
        raise ServiceError(
            "total_fen",
            "money_too_young",
            _("Only money that was received more than %(hours)s hours ago can be sent."),
            hours=hours,
        )


def _require_few_open(wallet: Account) -> None:
    unfinished = Lane.objects.filter(
        packet__funder=wallet,
        packet__state__in=[Packet.State.OPEN, Packet.State.PAUSED],
        claimed_count__lt=F("count"),
    )
    if unfinished.count() >= MAX_OPEN:
        raise ServiceError(
            "",
            "too_many_open",
            _("At most %(most)s of your packets can have portions left at a time."),
            most=MAX_OPEN,
        )
