"""The rows of the data plane, a module for each subject.

    Gate ── stands before packets: unless it is open, nothing behind it is claimed
    Gate ─< Block                      who wins nothing behind it
    Packet ─< Lane ─< LaneEpoch        an amount cut into portions, in independent slices
              Lane ─< Claim ── ClaimState   one participant's portion, and what became of it
              Lane ── LaneCursor       how far settlement has come
    Packet ── PeoplePacket             who sends it, where a person pays for it
    Packet ─< Ticket                   rights to a claim, where a person may claim more than once
    Account ─< Transfer                double entry
    Claim ── Hold ── HoldAppeal        money that waits for a person; RiskRule says when
    ProviderAccount ─< Payout ─< PayoutNumber ─< PayoutCall   money on its way out
    ProviderAccount ─< Statement ─< StatementLine; Difference   what the provider says of it
    PayoutMark, ProviderChange         asked for by one person, decided by another

Claim, LaneEpoch, Ticket, Transfer, RiskRule and HoldAppeal are insert-only (triggers and the
application's role refuse the rest).
What the database itself guarantees is written in `packets/sql/`; the rules of a claim's commit are
in `packets/sql/commit_claims.sql`.
"""

from __future__ import annotations

from packets.models.blocks import Block
from packets.models.claim import Claim, ClaimState
from packets.models.deciding import PayoutMark, ProviderChange
from packets.models.holds import MAX_RULE_WINDOW_S, Hold, HoldAppeal, RiskRule
from packets.models.lane import MAX_PORTIONS_PER_LANE, Lane, LaneCursor, LaneEpoch
from packets.models.ledger import Account, Transfer
from packets.models.limit import MAX_LIMIT_WINDOW_S, LimitRule
from packets.models.packet import MAX_LANES, Gate, Packet, PacketTarget, Participant, Ticket
from packets.models.payouts import Payout, PayoutCall, PayoutNumber, ProviderAccount
from packets.models.people import PeoplePacket
from packets.models.reconciling import Difference, Statement, StatementLine, StockCheck
from packets.models.touches import ShareTouch

__all__ = [
    "MAX_LANES",
    "MAX_LIMIT_WINDOW_S",
    "MAX_PORTIONS_PER_LANE",
    "MAX_RULE_WINDOW_S",
    "Account",
    "Block",
    "Claim",
    "ClaimState",
    "Difference",
    "Gate",
    "Hold",
    "HoldAppeal",
    "Lane",
    "LaneCursor",
    "LaneEpoch",
    "LimitRule",
    "Packet",
    "PacketTarget",
    "Participant",
    "Payout",
    "PayoutCall",
    "PayoutMark",
    "PayoutNumber",
    "PeoplePacket",
    "ProviderAccount",
    "ProviderChange",
    "RiskRule",
    "ShareTouch",
    "Statement",
    "StatementLine",
    "StockCheck",
    "Ticket",
    "Transfer",
]
