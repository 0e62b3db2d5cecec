"""A person goes: everything that says who they are is erased; what money did stays.

Invariants: nothing is erased while money of the person is still on its way, and the books answer
every question after it as before it (amounts, ids and digests stay). It is one transaction: killed
in the middle it never happened, and repeating it finds what is left.

The digest of (app, user id) stays where once per person hangs on it. It isn't keyed: whoever knows
the app and the user id can still find its rows, as they could before. Should the same person come
back, they are written down anew, and what they had once they still can't have twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign.models import TargetUploadPart
from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError
from engine.lib.ids import participant_digest
from engine.lib.money import yuan
from packets.wallets import one_at_a_time

ACT = "person.erase"

# What must come to its end first: how many there are, and how much money that is.
_MATTERS: dict[str, Any] = {
    "wallet": gettext_lazy("money in the wallet"),
    "held": gettext_lazy("money that is held for review"),
    "claims": gettext_lazy("claims that aren't settled"),
    "rewards": gettext_lazy("rewards that are earned and not granted yet"),
    "holds": gettext_lazy("holds that nobody has decided on"),
    "payouts": gettext_lazy("withdrawals under way"),
    "packets": gettext_lazy("packets of their own that aren't closed"),
    "lists": gettext_lazy("uploaded lists with their name that are being read"),
}
_UNSETTLED = """
SELECT account.kind, count(*), sum(account.credits_fen - account.debits_fen)::bigint
  FROM packets_account AS account
 WHERE account.owner = encode(%(person)s, 'hex') AND account.kind IN ('wallet', 'held')
   AND account.credits_fen <> account.debits_fen
 GROUP BY account.kind
 UNION ALL
SELECT 'claims', count(*), sum(claim.amount_fen)::bigint
  FROM packets_claim AS claim
  LEFT JOIN packets_claimstate AS became ON became.claim_id = claim.id
 WHERE claim.participant = %(person)s AND COALESCE(became.state, 'parked') = 'parked'
 UNION ALL
-- Not those that wait for a ban to be lifted, or a person of ours to let somebody go.
SELECT 'rewards', count(*), 0
  FROM referrals_qualification AS due
  JOIN referrals_referral AS edge ON edge.id = due.referral_id
  JOIN campaign_campaigngrowth AS growth ON growth.campaign_id = edge.campaign_id
 WHERE due.done_at IS NULL AND due.qualified_by <> ''
   AND (edge.inviter = %(person)s AND growth.inviter_packet_id IS NOT NULL
     OR edge.invitee = %(person)s AND growth.invitee_packet_id IS NOT NULL)
   AND NOT EXISTS (SELECT FROM referrals_reward AS reward
                    WHERE reward.referral_id = edge.id AND reward.participant = %(person)s)
   AND NOT EXISTS (SELECT FROM referrals_ban AS ban
                    WHERE ban.participant = %(person)s AND ban.lifted_at IS NULL
                      AND COALESCE(ban.campaign_id, edge.campaign_id) = edge.campaign_id)
   AND NOT EXISTS (SELECT FROM referrals_riskmember AS member
                     JOIN referrals_riskcase AS found ON found.id = member.case_id
                    WHERE member.participant = %(person)s AND member.cleared_at IS NULL
                      AND member.campaign_id = edge.campaign_id AND found.decision = 'deny')
 UNION ALL
SELECT 'holds', count(*), sum(amount_fen)::bigint
  FROM packets_hold WHERE participant = %(person)s AND state = 'open'
 UNION ALL
SELECT 'payouts', count(*), sum(amount_fen)::bigint
  FROM packets_payout
 WHERE participant = %(person)s AND state NOT IN ('paid', 'failed', 'cancelled')
 UNION ALL
SELECT 'packets', count(*), sum(packet.total_fen)::bigint
  FROM packets_peoplepacket AS sent
  JOIN packets_packet AS packet ON packet.id = sent.packet_id
 WHERE sent.participant = %(person)s AND packet.state <> 'closed'
"""


@dataclass(frozen=True, slots=True)
class Matter:
    """Something unfinished of a person. `what` is a key of `_MATTERS`."""

    what: str
    count: int
    fen: int

    def __str__(self) -> str:
        words = str(_MATTERS[self.what])
        return f"{words} ({self.count}{f', {yuan(self.fen)}' if self.fen else ''})"


def unfinished(client_app_id: int, subject: str) -> list[Matter]:
    """What must be settled before the person can be erased."""
    person = participant_digest(client_app_id, subject)
    with connection.cursor() as cursor:
        cursor.execute(_UNSETTLED, {"person": person})
        found = [Matter(what, count, fen or 0) for what, count, fen in cursor.fetchall() if count]
    if lists := len(_lists_naming(client_app_id, subject)):
        found.append(Matter("lists", lists, 0))
    return sorted(found, key=lambda matter: list(_MATTERS).index(matter.what))


def _lists_naming(client_app_id: int, subject: str) -> set[int]:
    """Uploads whose parts still wait to be read (mostly none do) and name them in a row."""
    waiting = TargetUploadPart.objects.filter(
        upload__client_app=client_app_id, text__contains=subject
    )
    return {
        part.upload_id
        for part in waiting.iterator(chunk_size=10)
        if any(re.split(r"[,\t]", line)[0].strip(' "') == subject for line in part.text.split("\n"))
    }


def person_erase(
    *, client_app_id: int, subject: str, actor: str, reason: str = "", dry_run: bool = False
) -> dict[str, int]:
    """Erase; how many rows of each kind were changed (with `dry_run`: would be).

    ServiceError `unfinished` where something must be settled first; then nothing has changed.
    """
    person = participant_digest(client_app_id, subject)
    with transaction.atomic():
        # The person takes nothing out of the wallet meanwhile; and what comes in, comes from a
        # claim that we see here.
        one_at_a_time(person)
        if matters := unfinished(client_app_id, subject):
            raise ServiceError(
                "person",
                "unfinished",
                _("First this must come to its end: %(matters)s."),
                matters="; ".join(map(str, matters)),
            )
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT what, changed FROM laisee_erase_person(%s, %s, %s)",
                [person, client_app_id, subject],
            )
            erased = {what: changed for what, changed in cursor.fetchall() if changed}
        if dry_run:
            transaction.set_rollback(True)
        elif erased:
            audit_record(
                actor=actor,
                action=ACT,
                object_type="participant",
                object_id=person.hex(),
                after=erased,
                reason=reason,
            )
    return erased
