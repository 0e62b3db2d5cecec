"""Growth's sweeps, in a queue of their own: each only calls a service, and may run twice, late, or
at the same time.
"""

from __future__ import annotations

import time

from celery import shared_task

from referrals.events import issuing
from referrals.forest.touches import touches_bind_due
from referrals.rewarding import qualifying, running

# Seconds for which a run goes on while there is work; then others have the worker.
RUN_S = 5.0
FORGET_S = 20.0  # an hour's share of forgetting; a backlog is worked off over hours
# Rows leased at once: a worker that dies leaves no more than these to wait for their next attempt.
REWARDS_LEASED = 20
TICKETS_LEASED = 100
# Looking at all people of a large campaign takes longer than other tasks may; shorter than the
# broker waits before it gives the task to somebody else.
COUNTING_S = 90
COUNTING_HARD_S = COUNTING_S + 10


@shared_task(name="referrals.tasks.touches_sweep")
def touches_sweep() -> None:
    """Bind friends who claimed with somebody's code."""
    touches_bind_due()


@shared_task(name="referrals.tasks.growth_claims")
def growth_claims() -> int:
    """Looks at new edges, and reads the claims that came since: what they set going is due then."""
    until, seen = time.monotonic() + RUN_S, 0
    while time.monotonic() < until:
        step = qualifying.edges_look()
        for lane_id in qualifying.lanes_waiting():
            step += qualifying.lane_read(lane_id)
        if step == 0:
            break
        seen += step
    return seen


@shared_task(name="referrals.tasks.growth_rewards")
def growth_rewards() -> int:
    """Grants the rewards that are due."""
    until, seen = time.monotonic() + RUN_S, 0
    while time.monotonic() < until and (step := running.qualifications_run(limit=REWARDS_LEASED)):
        seen += step
    return seen


@shared_task(name="referrals.tasks.growth_tickets")
def growth_tickets() -> int:
    """Issues the tickets that rules gave."""
    until, seen = time.monotonic() + RUN_S, 0
    while time.monotonic() < until and (step := issuing.dues_run(limit=TICKETS_LEASED)):
        seen += step
    return seen


@shared_task(name="referrals.tasks.bans_sweep")
def bans_sweep() -> None:
    """Hold the rewards around banned people, and release those of lifted bans."""
    from referrals.forest.bans import bans_carry_out

    bans_carry_out()


@shared_task(
    name="referrals.tasks.risk_sweep", soft_time_limit=COUNTING_S, time_limit=COUNTING_HARD_S
)
def risk_sweep() -> None:
    """Find clusters of accounts that seem to be one person's, and hold what they have earned."""
    # Here, since only whoever looks for farms loads the library of arrays.
    from referrals.risk import cases, holding

    cases.campaigns_sweep()
    holding.rewards_hold()


@shared_task(name="referrals.tasks.identities_forget")
def identities_forget() -> None:
    """Forget whatever is older than this installation keeps."""
    from django.conf import settings

    from referrals.privacy import forgetting

    forgetting.identities_forget(
        older_than_days=settings.IDENTITIES_KEPT_DAYS, actor="system:privacy", for_s=FORGET_S
    )


@shared_task(
    name="referrals.tasks.risk_work", soft_time_limit=COUNTING_S, time_limit=COUNTING_HARD_S
)
def risk_work() -> None:
    """Hold what people of known cases have earned since, go on with reviewers' acts, try drafts."""
    from referrals.risk import acts, holding, trials

    holding.rewards_hold()
    acts.acts_run()
    trials.trials_run()


@shared_task(
    name="referrals.tasks.growth_snapshots", soft_time_limit=COUNTING_S, time_limit=COUNTING_HARD_S
)
def growth_snapshots() -> int:
    """Counts the campaigns whose figures are due."""
    from referrals.analytics.snapshots import snapshot_take_due

    until, taken = time.monotonic() + RUN_S, 0
    while time.monotonic() < until and snapshot_take_due() is not None:
        taken += 1
    return taken
