"""The campaigns' clock: ends what is over, and finishes what a dead process left half done.

A scan of due rows; safe to run twice, also at once: `campaign_end` is a conditional UPDATE, and
converging repeats harmlessly.
"""

from __future__ import annotations

import structlog
from celery import shared_task

from campaign import selectors, services
from campaign.convergence import campaign_converge
from engine.lib.clock import now
from engine.lib.errors import ServiceError

log = structlog.get_logger(__name__)

CLOCK = "system:clock"
BATCH = 50  # campaigns a run; the next run, seconds later, goes on


@shared_task(name="campaign.tasks.campaign_clock")
def campaign_clock() -> dict[str, int]:
    """Ends campaigns past `ends_at` and converges those whose gate or packets lag behind."""
    counts = {"ended": 0, "converged": 0, "refused": 0}
    for campaign_id in selectors.campaigns_due(now(), BATCH):
        try:
            services.campaign_end(campaign_id=campaign_id, actor=CLOCK, reason="its time is over")
            counts["ended"] += 1
        except ServiceError as refusal:  # somebody else ended, paused or killed it just now
            counts["refused"] += 1
            log.info("campaign_end_refused", campaign=campaign_id.hex, why=str(refusal))
    for campaign_id in selectors.campaigns_lagging(BATCH):
        try:
            campaign_converge(campaign_id=campaign_id, actor=CLOCK)
            counts["converged"] += 1
        except ServiceError as refusal:
            counts["refused"] += 1
            log.warning("campaign_converge_refused", campaign=campaign_id.hex, why=str(refusal))
    return counts
