"""What growth costs: in all, for each person who came, and for each who stays.

Spent is what people won, rewards included, less what was forfeited and went back to the campaign.
Paid is what of it stands in wallets (or has left them), reserved what is won and not settled yet,
or held. A person is acquired when they did what counts: a friend has earned the rewards of their
referral, others have claimed; suspects (in a risk case, or banned) never are, while what they won
was spent all the same. Cost per retained person divides the cost per acquired by the share that
was seen on day k, so that people whose day k is still to come neither help nor harm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from django.db import connection

from campaign import board
from campaign.models import Campaign
from referrals.analytics.crowd import Crowd, rewards_of

_SPENT = """
    WITH part AS (
        SELECT packet.id = ANY(%(rewards)s::uuid[]) AS is_reward,
               sum(lane.claimed_fen) AS claimed,
               sum(CASE WHEN lane.state = 'closed' THEN 0
                        ELSE lane.total_fen - lane.claimed_fen END) AS unclaimed,
               max(escrow.credits_fen - escrow.debits_fen) AS escrow
          FROM campaign_campaignpacket AS link
          JOIN packets_packet AS packet ON packet.id = link.packet_id
          JOIN packets_lane AS lane ON lane.packet_id = packet.id
          JOIN packets_account AS escrow ON escrow.id = packet.escrow_id
         WHERE link.campaign_id = %(campaign)s
         GROUP BY packet.id
    )
    SELECT COALESCE(sum(claimed), 0)::bigint,
           COALESCE(sum(claimed) FILTER (WHERE is_reward), 0)::bigint,
           COALESCE(sum(escrow - unclaimed), 0)::bigint
      FROM part
"""
_HELD = """
    SELECT COALESCE(sum(amount_fen) FILTER (WHERE state = 'open'), 0)::bigint,
           COALESCE(sum(amount_fen) FILTER (WHERE state = 'forfeited'), 0)::bigint
      FROM packets_hold WHERE funder_id = %(funder)s AND opened_at >= %(since)s
"""
_FORFEITED = """
    SELECT hold.participant, hold.amount_fen,
           EXISTS (SELECT FROM referrals_reward AS reward WHERE reward.claim_id = hold.claim_id)
           OR EXISTS (SELECT FROM referrals_riskreward AS risk WHERE risk.hold_id = hold.id)
           OR EXISTS (SELECT FROM referrals_banreward AS ban WHERE ban.hold_id = hold.id)
      FROM packets_hold AS hold
     WHERE hold.funder_id = %(funder)s AND hold.state = 'forfeited' AND hold.opened_at >= %(since)s
     ORDER BY hold.id LIMIT %(most)s
"""
FORFEITED_MAX = 100_000  # beyond it, forfeits are taken off the total only


def cost(campaign: Campaign, crowd: Crowd, retention: dict[str, Any]) -> dict[str, Any]:
    names: dict[str, Any] = {
        "campaign": campaign.pk,
        "rewards": list(rewards_of(campaign)),
        "funder": campaign.account_id,
        "since": campaign.created_at,
        "most": FORFEITED_MAX,
    }
    with connection.cursor() as cursor:
        cursor.execute(_SPENT, names)
        claimed, rewards, unsettled = cursor.fetchone()
        cursor.execute(_HELD, names)
        held, forfeited = cursor.fetchone()
        cursor.execute(_FORFEITED, names)
        back = _given_back(crowd, cursor.fetchall())
    own = np.where(crowd.looked, crowd.won_fen, 0)
    invited = crowd.invited
    friends_fen = int(own[invited].sum()) * crowd.one_in - back["invited"]
    cold_fen = int(own[~invited].sum()) * crowd.one_in - back["cold"]
    trusted = ~crowd.suspect
    friends = int((invited & crowd.qualified & trusted).sum())
    cold = crowd.scaled(~invited & crowd.claimed & trusted)
    spent = claimed - forfeited
    return {
        "spent_fen": spent,
        "paid_fen": spent - unsettled - held,
        "unsettled_fen": unsettled,
        "held_fen": held,
        "forfeited_fen": forfeited,
        "rewards_fen": rewards - back["rewards"],
        "sides": {
            "invited": _side(
                friends_fen + rewards - back["rewards"], friends, retention["invited"]
            ),
            "cold": _side(cold_fen, cold, retention["cold"]),
        },
        "acquired": friends + cold,
        "per_acquired_fen": _each(spent, friends + cold),
        "suspects": crowd.scaled(crowd.suspect),
    }


def _given_back(crowd: Crowd, rows: list[tuple[Any, int, bool]]) -> dict[str, int]:
    found = {"invited": 0, "cold": 0, "rewards": 0}
    keys = np.array([int.from_bytes(bytes(row[0])[:8], "big") for row in rows], np.uint64)
    place = np.minimum(np.searchsorted(crowd.key, keys), max(crowd.size - 1, 0))
    for (_who, fen, is_reward), key, row in zip(rows, keys, place, strict=True):
        friend = bool(crowd.size) and crowd.key[row] == key and bool(crowd.invited[row])
        found["rewards" if is_reward else "invited" if friend else "cold"] += fen
    return found


def _each(fen: int, people: int) -> int | None:
    """Rounded up: a cost is never said to be less than it was."""
    return -(-fen // people) if people else None


def _side(fen: int, people: int, retention: list[dict[str, int]]) -> dict[str, Any]:
    return {
        "fen": fen,
        "acquired": people,
        "per_acquired_fen": _each(fen, people),
        "per_retained_fen": [
            {
                "day": one["day"],
                # fen / (people · seen / looked at), in whole numbers.
                "fen": _each(fen * one["people"], people * one["seen"]),
            }
            for one in retention
        ],
    }


def burn(campaign: Campaign) -> dict[str, Any]:
    """The live board's line and its forecast, as they are now."""
    (standing,) = board.standings(campaign.pk)
    ahead = board.forecast(campaign, standing)
    return {
        "points": [[int(at.timestamp()), fen] for at, fen in board.burn(campaign, standing)],
        "bound_fen": standing.bound_fen,
        "claimed_fen": standing.claimed_fen,
        "ends_s": int(campaign.ends_at.timestamp()),
        "per_minute_fen": ahead.fen_per_minute,
        "empty_s": int(ahead.empty_at.timestamp()) if ahead.empty_at else None,
        "left_at_end_fen": ahead.left_at_end_fen,
    }
