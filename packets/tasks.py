"""Celery's entrances into the data plane: each only calls a service.

A task is a wake-up, never the record: what must be done stands in Postgres, and every sweep finds
what a lost message left behind. All of them may run twice, late, or at the same time.
"""

from __future__ import annotations

from celery import shared_task

from packets import settlement


@shared_task(name="packets.tasks.settle_sweep")
def settle_sweep() -> None:
    """Settle whatever is due, in every lane."""
    settlement.settle_due()


@shared_task(name="packets.tasks.settle_parked")
def settle_parked() -> None:
    """Try once more what settlement was refused; the cause may be mended by now."""
    settlement.retry_parked()


@shared_task(name="packets.tasks.expire_sweep")
def expire_sweep() -> None:
    """Close packets whose window is over; what nobody claimed goes back."""
    from packets.services import packets_expire_due

    packets_expire_due()


@shared_task(name="packets.tasks.stranded_sweep")
def stranded_sweep() -> None:
    """Commit reservations that their requests left behind."""
    from packets.recovery import stranded_adopt_due

    stranded_adopt_due()


@shared_task(name="packets.tasks.stock_expire_sweep")
def stock_expire_sweep() -> None:
    """Let Redis forget closed packets that nobody has told it to forget."""
    from packets.flags import stock_expire_due

    stock_expire_due()


@shared_task(name="packets.tasks.rebalance_sweep")
def rebalance_sweep() -> None:
    """Move portions of open packets to where people wait for them."""
    from packets.rebalancing import rebalance_due

    rebalance_due()


@shared_task(name="packets.tasks.payout_sweep")
def payout_sweep() -> None:
    """Make the steps of payouts that are due, one after the other, for a while."""
    from packets.payouts.sending import payout_sweep_run

    payout_sweep_run()


@shared_task(name="packets.tasks.payout_overdue")
def payout_overdue() -> None:
    """Give payouts to a person that nothing could be sent for until it was too late to ask."""
    from packets.payouts.sending import payouts_overdue_set_aside

    payouts_overdue_set_aside()


# A long day takes its time to come; less than the broker waits before it gives a task to another.
@shared_task(name="packets.tasks.reconcile_sweep", soft_time_limit=100, time_limit=110)
def reconcile_sweep() -> None:
    """Fetch the statements that are due, and compare what has come."""
    from packets.providers import provider_of
    from packets.reconciling import matching, statements

    statements.statements_fetch_due(for_s=10, provider_of=provider_of)
    matching.statements_match_due(for_s=10)


@shared_task(name="packets.tasks.differences_sweep")
def differences_sweep() -> None:
    """Close the differences about which both sides agree by now."""
    from packets.reconciling.matching import differences_close_agreeing

    differences_close_agreeing()


@shared_task(name="packets.tasks.three_way_sweep")
def three_way_sweep() -> None:
    """Redis stock, ledger and provider: once an hour, held against each other."""
    from engine.lib.redis import stock
    from packets.providers import provider_of
    from packets.reconciling.three_way import three_way_due

    three_way_due(client=stock(), provider_of=provider_of)


@shared_task(name="packets.tasks.load_claimants")
def load_claimants(lane_id: int | None = None) -> None:
    """A slice of loading winners into Redis after a rebuild, this lane's first; then the next."""
    from engine.lib.redis import stock
    from packets import claimants

    if claimants.load_due(client=stock(), first=lane_id):
        claimants.wake(lane_id)
