"""Banning a person: nobody is bound to them or by them any more, and rewards around them wait.

At once, in one transaction: the ban, their links revoked, and the doors told (`packets.blocking`):
their claims answer `blocked`. Right after it, their own open packets are paused. By a sweep, one
transaction for each reward: what they and everybody below them earn by referrals from before the
ban, once it is settled and as far as it is still in their wallets, is held for a reviewer. Lifting
a ban gives back all of it that nobody has decided on meanwhile.

What is kept here:

- A reward is held by one ban once, whoever sweeps at the same time: whoever works on a ban holds
  its row. What another ban or a case of risk holds waits until that is over (`freezing.py`).
- None slips through, however late it is granted or settled: whoever writes a reward wakes the bans
  above it, and a ban waits for rewards that are being written (`GRANTS`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign
from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError, TransitionRefused
from engine.models import AuditEvent
from packets.blocking import block_add, block_remove
from packets.holds.resolving import hold_release
from packets.holds.rules import RiskReason
from packets.models import ClaimState, Gate, Hold, Packet
from packets.services import packet_pause, packet_resume
from referrals.models import Ban, BanReward, Reward, ShareLink
from referrals.rewarding.freezing import IS_FORFEITED, IS_HELD, HeldAlready, reward_freeze

REASON_MAX_CHARS = 200
MARK = "ban:"  # with its number: the reason of what a ban has revoked or paused
# Rewards that are looked for at once; the walk through a tree of a million costs a second or two.
BATCH = 2_000
# The advisory lock that whoever writes an edge or a reward shares, and whoever bans has alone.
GRANTS = "growth:grants"
# A reward that isn't settled yet can't be held; settlement takes seconds.
AGAIN_AFTER = dt.timedelta(seconds=5)
# One that another ban or a case holds is looked at again, in case it is released there.
HELD_AGAIN_AFTER = dt.timedelta(seconds=60)


def bans_wait() -> None:
    """Called by the transaction that makes an edge, before it looks for bans: a ban comes before
    it, or sees it."""
    # guard:binding begin
    _lock_grants("pg_advisory_xact_lock_shared")
    # guard:binding end


def is_banned(campaign_id: uuid.UUID, *people: bytes) -> bool:
    """Whether one of them is banned in this campaign, or everywhere."""
    return Ban.objects.filter(
        Q(campaign=campaign_id) | Q(campaign=None), participant__in=people, lifted_at=None
    ).exists()


def person_ban(*, participant: bytes, campaign: Campaign | None, actor: str, reason: str) -> Ban:
    """Ban a person, in one campaign or everywhere. Raises ServiceError."""
    reason = _checked(reason)
    try:
        with transaction.atomic():
            _lock_grants("pg_advisory_xact_lock")
            ban = Ban.objects.create(
                participant=participant, campaign=campaign, reason=reason, banned_by=actor
            )
            block_add(gate_key=_gate_key(ban), participant=participant)
            links = _links(ban).filter(revoked_at=None)
            revoked = links.update(revoked_at=Now(), revoke_reason=_mark(ban))
            _audit(ban, "person.ban", actor, reason, links=revoked)
    except IntegrityError:
        raise ServiceError("participant", "banned", _("This person is banned already.")) from None
    _packets_stop(ban)
    ban.refresh_from_db()
    return ban


def ban_lift(*, ban_id: int, actor: str, reason: str) -> Ban:
    """Let a person share again. Raises ServiceError."""
    reason = _checked(reason)
    with transaction.atomic():
        _lock_grants("pg_advisory_xact_lock")
        lifted = Ban.objects.filter(pk=ban_id, lifted_at=None).update(
            lifted_at=Now(), lifted_by=actor, lift_reason=reason, is_done=False, due_at=Now()
        )
        if lifted != 1:
            raise ServiceError("ban", "lifted", _("This ban was lifted already."))
        ban = Ban.objects.get(pk=ban_id)
        given = _links_return(ban)
        block_remove(gate_key=_gate_key(ban), participant=bytes(ban.participant))
        _audit(ban, "person.unban", actor, reason, links=given)
    _packets_go_on(ban)
    return ban


def _checked(reason: str) -> str:
    reason = reason.strip()
    if not reason:
        raise ServiceError("reason", "blank", _("Say why: the person may ask."))
    if len(reason) > REASON_MAX_CHARS:
        raise ServiceError("reason", "too_long", _("The reason is too long."))
    return reason


def _gate_key(ban: Ban) -> str:
    return ban.campaign.gate.key if ban.campaign else Gate.ALL


def _lock_grants(function: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(hashtextextended(%s, 0))", [GRANTS])


def _mark(ban: Ban) -> str:
    return f"{MARK}{ban.pk}"


def _links(ban: Ban) -> QuerySet[ShareLink]:
    links = ShareLink.objects.filter(participant=ban.participant)
    return links.filter(campaign=ban.campaign_id) if ban.campaign_id else links


def _links_return(ban: Ban) -> int:
    """Those that no other ban keeps revoked."""
    back = _links(ban).filter(revoke_reason=_mark(ban))
    for other in Ban.objects.filter(participant=ban.participant, lifted_at=None).order_by("id"):
        _links(other).filter(pk__in=back.values("pk")).update(revoke_reason=_mark(other))
    return back.update(revoked_at=None, revoke_reason="")


def _own_packets(ban: Ban, state: str) -> list[uuid.UUID]:
    mine = Packet.objects.filter(sent__participant=ban.participant, state=state)
    return list(mine.order_by("id").values_list("pk", flat=True))


def _packets_stop(ban: Ban) -> None:
    for packet in _own_packets(ban, Packet.State.OPEN):
        _moved(packet_pause, packet, ban.banned_by, _mark(ban))


def _packets_go_on(ban: Ban) -> None:
    """What a ban has paused, once none is left; what staff have paused for another reason stays."""
    if Ban.objects.filter(participant=ban.participant, lifted_at=None).exists():
        return
    for packet in _own_packets(ban, Packet.State.PAUSED):
        paused = AuditEvent.objects.filter(
            object_type="packet", object_id=packet.hex, action="packet.pause"
        )
        last = paused.order_by("-id").first()
        if last is not None and last.reason.startswith(MARK):
            _moved(packet_resume, packet, ban.lifted_by, _mark(ban))


def _moved(service: Callable[..., Packet], packet: uuid.UUID, actor: str, reason: str) -> None:
    try:
        service(packet_id=packet, actor=actor, reason=reason)
    except TransitionRefused:
        return  # closed meanwhile: nothing is left to claim


def _audit(ban: Ban, action: str, actor: str, reason: str, **counts: int) -> None:
    where = ban.campaign.slug if ban.campaign else "*"
    audit_record(
        actor=actor,
        action=action,
        object_type="ban",
        object_id=str(ban.pk),
        after={"participant": bytes(ban.participant).hex(), "campaign": where, **counts},
        reason=reason,
    )


# --- rewards --------------------------------------------------------------------------------------

# The person and everybody below, per campaign; UNION, for a person stands below once.
_REWARDS = f"""
WITH RECURSIVE below (campaign_id, person) AS (
    SELECT DISTINCT campaign_id, %(person)s::bytea FROM referrals_referral
     WHERE (inviter = %(person)s OR invitee = %(person)s)
       AND (%(campaign)s::uuid IS NULL OR campaign_id = %(campaign)s)
    UNION
    SELECT edge.campaign_id, edge.invitee
      FROM below JOIN referrals_referral AS edge
        ON edge.campaign_id = below.campaign_id AND edge.inviter = below.person
)
SELECT reward.id, state.state, {IS_HELD} AS is_held
  FROM below
  JOIN referrals_reward AS reward ON reward.participant = below.person
  JOIN referrals_referral AS earned
    ON earned.id = reward.referral_id AND earned.campaign_id = below.campaign_id
  LEFT JOIN packets_claimstate AS state ON state.claim_id = reward.claim_id
 WHERE reward.state = 'granted' AND earned.bound_at <= %(until)s
   AND COALESCE(state.state, 'committed') IN ('committed', 'parked', 'settled')
   AND NOT EXISTS (SELECT FROM referrals_banreward AS seen
                    WHERE seen.ban_id = %(ban)s AND seen.reward_id = reward.id)
   AND NOT {IS_FORFEITED}
 ORDER BY is_held, state.state = 'settled' DESC, reward.id
 LIMIT %(most)s
"""


def bans_carry_out(batch: int = BATCH) -> int:
    """Hold or release what is due, of each ban so many rewards; how many were moved."""
    due = Ban.objects.filter(is_done=False, due_at__lte=Now()).order_by("due_at")
    moved = 0
    for ban in list(due[:20]):
        # Packets again: whoever banned or lifted may have died before they came to them.
        if ban.lifted_at:
            _packets_go_on(ban)
            moved += _release(ban, batch)
        else:
            _packets_stop(ban)
            moved += _hold(ban, batch)
    return moved


def _hold(ban: Ban, batch: int) -> int:
    names: dict[str, Any] = {
        "ban": ban.pk,
        "person": bytes(ban.participant),
        "campaign": ban.campaign_id,
        "until": ban.banned_at,
        "most": batch,
    }
    with connection.cursor() as cursor:
        cursor.execute(_REWARDS, names)
        found = cursor.fetchall()
    settled = ClaimState.State.SETTLED
    free = [reward for reward, state, is_held in found if state == settled and not is_held]
    held = sum(_hold_one(ban.pk, reward) for reward in free)
    # Not once a reward was written meanwhile, which may be missing above: that moves `due_at`.
    active = Ban.objects.filter(pk=ban.pk, lifted_at=None, due_at=ban.due_at)
    if not found:
        active.update(is_done=True)
    elif not free:
        only_held = all(is_held for _reward, _state, is_held in found)
        active.update(due_at=Now() + (HELD_AGAIN_AFTER if only_held else AGAIN_AFTER))
    return held


_WAKE = """
WITH RECURSIVE above (person) AS (
    SELECT %(person)s::bytea
     UNION
    SELECT edge.inviter FROM above JOIN referrals_referral AS edge
        ON edge.campaign_id = %(campaign)s AND edge.invitee = above.person
), woken AS (
    SELECT ban.id FROM above JOIN referrals_ban AS ban ON ban.participant = above.person
     WHERE ban.lifted_at IS NULL
       AND (ban.campaign_id = %(campaign)s OR ban.campaign_id IS NULL)
     ORDER BY ban.id FOR NO KEY UPDATE OF ban
)
UPDATE referrals_ban SET is_done = false, due_at = clock_timestamp()
 WHERE id IN (SELECT id FROM woken)
"""


def bans_wake(campaign_id: uuid.UUID, person: bytes) -> None:
    """Called first by the transaction that writes a reward of this person."""
    # guard:grants begin
    _lock_grants("pg_advisory_xact_lock_shared")
    # guard:grants end
    active = Ban.objects.filter(Q(campaign=campaign_id) | Q(campaign=None), lifted_at=None)
    if active.exists():
        with connection.cursor() as cursor:
            cursor.execute(_WAKE, {"campaign": campaign_id, "person": person})


def _hold_one(ban_id: int, reward_id: int) -> bool:
    with transaction.atomic():
        ban = Ban.objects.select_for_update(of=("self",)).get(pk=ban_id)
        if ban.lifted_at or ban.rewards.filter(reward=reward_id).exists():
            return False
        reward = Reward.objects.select_related("claim__packet", "referral__campaign").get(
            pk=reward_id
        )
        try:
            hold = reward_freeze(
                reward=reward,
                reasons=[RiskReason.STAFF],
                actor=ban.banned_by,
                reason=ban.reason,
            )
        except HeldAlready:
            return False
        BanReward.objects.create(ban=ban, reward=reward, hold=hold)
    return hold is not None


def _release(ban: Ban, batch: int) -> int:
    open_ones = BanReward.objects.filter(ban=ban, hold__state=Hold.State.OPEN)
    holds = list(open_ones.order_by("id").values_list("hold_id", flat=True)[:batch])
    for hold in holds:
        try:
            hold_release(hold_id=hold, actor=ban.lifted_by, reason=ban.lift_reason)
        except TransitionRefused:
            continue  # somebody decided meanwhile
    if len(holds) < batch:
        Ban.objects.filter(pk=ban.pk).exclude(lifted_at=None).update(is_done=True)
        # Other bans may want what was released.
        Ban.objects.filter(lifted_at=None, is_done=False).update(due_at=Now())
    return len(holds)
