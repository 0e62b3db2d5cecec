"""A person of ours holds what somebody won in a campaign: up to that, and to what is still there.

Money of other campaigns in the same wallet isn't touched: forfeited it would go to the wrong one.
"""

from __future__ import annotations

from django.db import connection, transaction
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign
from engine.lib.errors import ServiceError
from packets.holds.holding import hold_wallet
from packets.holds.rules import RiskReason
from packets.models import Hold
from packets.wallets import one_at_a_time, wallet_of

# Won and settled, less what was held of the wallet before and hasn't come back.
_WON = """
SELECT (SELECT COALESCE(sum(claim.amount_fen), 0)
          FROM packets_claim AS claim
          JOIN campaign_campaignpacket AS link ON link.packet_id = claim.packet_id
          JOIN packets_claimstate AS became
            ON became.claim_id = claim.id AND became.state = 'settled'
         WHERE claim.participant = %(person)s AND link.campaign_id = %(campaign)s)
     - (SELECT COALESCE(sum(amount_fen), 0)
          FROM packets_hold
         WHERE participant = %(person)s AND funder_id = %(funder)s AND claim_id IS NULL
           AND state IN ('open', 'forfeited'))
"""


def holdable_fen(participant: bytes, campaign: Campaign) -> int:
    """How much `wallet_hold` would hold now."""
    wallet = wallet_of(participant, campaign.currency)
    with connection.cursor() as cursor:
        cursor.execute(
            _WON,
            {"person": participant, "campaign": campaign.pk, "funder": campaign.account_id},
        )
        won_fen = int(cursor.fetchone()[0])
    return max(0, min(won_fen, wallet.balance_fen if wallet else 0))


def wallet_hold(*, participant: bytes, campaign: Campaign, actor: str, reason: str) -> Hold:
    """Raises ServiceError where there is nothing to hold."""
    with transaction.atomic():
        one_at_a_time(participant)
        amount_fen = holdable_fen(participant, campaign)
        hold = (
            hold_wallet(
                participant=participant,
                amount_fen=amount_fen,
                funder_id=campaign.account_id,
                reasons=[RiskReason.STAFF],
                actor=actor,
                reason=reason,
                currency=campaign.currency,
            )
            if amount_fen
            else None
        )
        if hold is None:
            raise ServiceError(
                "", "nothing", _("Nothing that was won in this campaign is in the wallet.")
            )
    return hold
