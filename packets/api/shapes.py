"""Turns what selectors and the claim flow return into the API's shapes."""

from __future__ import annotations

import functools
import uuid

from msgspec import UNSET

from engine.lib import crypto, ids
from engine.lib.clock import rfc3339
from engine.lib.problem import Code, ProblemError
from packets import invariants as rules
from packets import revealed, selectors
from packets.api import schemas
from packets.claiming.effects import Claimed, Outcome, PacketView, Result
from packets.claiming.limits import OverLimit
from packets.models import Account, ClaimState, Transfer
from packets.models import Packet as PacketRow

SEEDS_REMEMBERED = 1_000  # packets whose revealed seed a process keeps


def over_limit(over: OverLimit) -> ProblemError:
    return ProblemError(429, Code.RATE_LIMITED, over.detail, headers=over.headers())


# Not yet settled, or parked: safe, and to its owner `committed`.
_STATUS: dict[str | None, schemas.ClaimStatus] = {
    None: schemas.ClaimStatus.COMMITTED,
    ClaimState.State.PARKED: schemas.ClaimStatus.COMMITTED,
    ClaimState.State.SETTLED: schemas.ClaimStatus.SETTLED,
    ClaimState.State.HELD: schemas.ClaimStatus.HELD,
    ClaimState.State.FORFEITED: schemas.ClaimStatus.FORFEITED,
}


def claim_status(state: str | None) -> schemas.ClaimStatus:
    return _STATUS[state]


def own_claim(own: selectors.OwnClaim) -> schemas.Claim:
    return schemas.Claim(
        id=own.id.hex,
        packet=own.packet.hex,
        amount_fen=own.amount_fen,
        currency=own.currency,
        lane=own.lane,
        epoch=own.epoch,
        index=own.index,
        status=claim_status(own.state),
        claimed_at=rfc3339(own.committed_at),
    )


def won_claim(claimed: Claimed, view: PacketView, lane_number: int) -> schemas.Claim:
    return schemas.Claim(
        id=claimed.id.hex,
        packet=view.id.hex,
        amount_fen=claimed.portion.amount_fen,
        currency=view.currency,
        lane=lane_number,
        epoch=claimed.portion.epoch,
        index=claimed.portion.index,
        status=schemas.ClaimStatus.COMMITTED,
        claimed_at=rfc3339(claimed.committed_at),
    )


# What a refusal shows of the packet is newer than what the process remembers of it.
_SHOWN_BY = {
    Result.SOLD_OUT: schemas.PacketState.SOLD_OUT,
    Result.ENDED: schemas.PacketState.CLOSED,
    Result.PAUSED: schemas.PacketState.PAUSED,
    Result.NOT_STARTED: schemas.PacketState.SCHEDULED,
}

_STATES = {state.value: state for state in schemas.PacketState}


def claim_answer(outcome: Outcome, view: PacketView, participant: bytes) -> schemas.ClaimAnswer:
    won = outcome.claim is not None
    opens_at = view.opens_at if outcome.result is Result.NOT_STARTED else None
    lane_number = ids.home_lane(view.home_key, participant, len(view.lane_ids))
    return schemas.ClaimAnswer(
        result=outcome.result,
        packet=schemas.PacketLeft(
            # A lane's count says nothing of a packet of several lanes.
            left_count=(
                outcome.left_count
                if outcome.left_count is not None and len(view.lane_ids) == 1
                else view.left_count
            ),
            state=_SHOWN_BY.get(outcome.result, _STATES[view.state]),
        ),
        claim=won_claim(outcome.claim, view, lane_number) if outcome.claim else UNSET,
        replayed=outcome.replayed if won else UNSET,
        reason=outcome.reason if outcome.reason is not None else UNSET,
        opens_at=rfc3339(opens_at) if opens_at is not None else UNSET,
        test=True if outcome.test else UNSET,
    )


def seen_claim(seen: selectors.ClaimSeen) -> schemas.RecentClaim:
    return schemas.RecentClaim(
        who=seen.who, amount_fen=seen.amount_fen, claimed_at=rfc3339(seen.claimed_at)
    )


def packet(seen: selectors.PacketSeen) -> schemas.Packet:
    row = seen.packet
    return schemas.Packet(
        id=row.id.hex,
        name=row.name,
        state=schemas.PacketState(seen.state),
        kind=schemas.Kind(row.strategy),
        currency=row.currency,
        total_fen=row.total_fen,
        count=row.count,
        left_count=seen.left_count,
        opens_at=rfc3339(row.opens_at),
        closes_at=rfc3339(row.closes_at),
        password_required=bool(row.password_hash),
        ticket_required=row.needs_ticket,
        seed_commitment=row.commitment,
        seed=seed_revealed(row),
        claim=own_claim(seen.own) if seen.own else None,
        recent_claims=[seen_claim(one) for one in seen.recent],
        luckiest=seen_claim(seen.luckiest) if seen.luckiest else None,
        sender=schemas.Sender(who=seen.sent.who, you=seen.sent.mine, message=seen.sent.message)
        if seen.sent
        else None,
    )


def seed_revealed(row: PacketRow) -> str | None:
    """The seed in hexadecimal once every lane is closed in Postgres, for good; not before."""
    return _seed(row.pk, row.seed_encrypted) if revealed.is_revealed(row) else None


@functools.lru_cache(maxsize=SEEDS_REMEMBERED)
def _seed(packet_id: uuid.UUID, seed_encrypted: str) -> str:
    return crypto.decrypt(seed_encrypted).hex()


def wallet_transfer(transfer: Transfer, participant: bytes) -> schemas.WalletTransfer:
    """The transfer as the wallet's owner sees it: what came in is positive."""
    # Its owner's held money has the same owner.
    into = transfer.credit_account
    came_in = into.kind == Account.Kind.WALLET and into.owner == participant.hex()
    kind, _, subject = transfer.reference.partition(":")
    return schemas.WalletTransfer(
        id=str(transfer.pk),
        kind=schemas.TransferKind(transfer.kind),
        amount_fen=transfer.amount_fen if came_in else -transfer.amount_fen,
        currency=transfer.currency,
        claim=subject if kind == "settle" else None,
        created_at=rfc3339(transfer.created_at),
    )


def invariants(report: rules.InvariantReport) -> schemas.Invariants:
    return schemas.Invariants(
        taken_at=rfc3339(report.taken_at),
        holds=report.holds,
        checks=[
            schemas.Invariant(
                number=check.number,
                name=check.name,
                meaning=check.meaning,
                value=check.value,
                holds=check.verdict is rules.Verdict.HOLDS,
                detail=check.detail,
            )
            for check in report.checks
        ],
    )
