"""The campaigns' clock: starts what is due, ends what is over, finishes what a dead process left.

A scan of due rows; safe to run twice, also at once: `campaign_end` is a conditional UPDATE, and
converging repeats harmlessly.
"""

from __future__ import annotations

import structlog
from celery import shared_task

from campaign import board, selectors, services
from campaign.convergence import campaign_converge
from campaign.disclosing.publishing import disclosures_publish_missing
from engine.lib.clock import now
from engine.lib.errors import ServiceError, TransitionRefused
from packets.ledger import LedgerError

log = structlog.get_logger(__name__)

CLOCK = "system:clock"
BATCH = 50  # campaigns a run; the next run, seconds later, goes on
UPLOADS_S = 5.0  # a run reads lists for so long, then lets others have the worker
MAILS = 100  # letters a run


@shared_task(name="campaign.tasks.campaign_clock")
def campaign_clock() -> dict[str, int]:
    """Starts and ends campaigns on time, and converges those whose gate or packets lag behind."""
    counts = {"started": 0, "ended": 0, "converged": 0, "refused": 0}
    for campaign_id in selectors.campaigns_starting(now(), BATCH):
        try:
            services.campaign_launch(campaign_id=campaign_id, actor=CLOCK)
            counts["started"] += 1
        except TransitionRefused:
            counts["refused"] += 1  # somebody else launched it, or changed it just now
        except (ServiceError, LedgerError) as refusal:
            counts["refused"] += 1
            log.error("campaign_launch_refused", campaign=campaign_id.hex, why=str(refusal))
            services.campaign_launch_failed(
                campaign_id=campaign_id, actor=CLOCK, reason=str(refusal)
            )
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
    for campaign_id in selectors.campaigns_with_late_money(BATCH):
        services.campaign_return_late(campaign_id=campaign_id, actor=CLOCK)
    disclosures_publish_missing(BATCH)
    return counts


@shared_task(name="campaign.tasks.target_uploads")
def target_uploads() -> int:
    """Reads waiting lists of people, part by part."""
    return services.target_uploads_run_due(for_s=UPLOADS_S)


@shared_task(name="campaign.tasks.notices_mail")
def notices_mail() -> int:
    """Sends waiting notices as letters, where mail is configured."""
    return services.notices_mail_due(limit=MAILS)


@shared_task(name="campaign.tasks.board_samples")
def board_samples() -> int:
    """Writes down how far the running campaigns are, for the live board's lines."""
    return board.samples_take()


@shared_task(name="campaign.tasks.exhausted_sweep")
def exhausted_sweep() -> int:
    """Tells client apps of campaigns that have nothing left to claim."""
    return services.campaigns_exhausted_tell()
