"""A campaign for one peak drill, apart from everybody else's: an app, keys and packets of its own.

Its people come with tokens of that app alone, so no real person can claim from it and nobody of the
drill can claim from anything else. The app bears the mark of a drill for ever
(`packets/drills.py`): its money comes from a world of its own and leaves through the sandbox only,
reports leave it out, and `manage.py drill_remove` may take all of it away again. Two drills share
nothing.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from campaign import services
from campaign.convergence import campaign_converge
from campaign.models import Campaign
from campaign.versions import version_hash
from engine.lib import crypto
from engine.lib.clock import now
from engine.lib.errors import ServiceError
from engine.models import ClientApp, ClientKey
from packets.models import Packet, ProviderAccount
from packets.providers.sandbox.adapter import CAPABILITIES as SANDBOX

ACTOR = "system:drill"
LENGTH = dt.timedelta(days=1)
MEAN_FEN = 100  # of a portion
LARGEST_FEN = 5_000
MAX_PACKETS = 50
# A pool's claims go to several lanes, each with a row lock of its own.
PORTIONS_PER_LANE = 5_000
MAX_LANES = 16
RUN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")


@dataclass(frozen=True)
class Drill:
    """What the load needs; the field names are those of the printed JSON."""

    campaign: str
    packets: list[str]
    client_key: dict[str, str]
    provider: str | None  # what a withdrawal names; None where no sandbox runs


def drill_make(*, run: str, portions: Sequence[int]) -> Drill:
    """A launched campaign with one open packet for each number of portions."""
    if not RUN.match(run):
        raise ServiceError("run", "format", _("Small letters, digits and hyphens, at most 32."))
    if not 1 <= len(portions) <= MAX_PACKETS or min(portions) < 1:
        raise ServiceError(
            "portions", "out_of_range", _("Between 1 and %(most)s packets."), most=MAX_PACKETS
        )
    with transaction.atomic():
        app = _app(run)
        campaign = _approved(run, app, portions)
        provider = _provider(app)
        key = _key(app, f"drill-{run}")
    try:
        services.campaign_launch(campaign_id=campaign.pk, actor=ACTOR)
    except ServiceError as refusal:
        if refusal.code != "transition_refused":
            raise
        # Its time has come already, and the sweep was faster.
        campaign_converge(campaign_id=campaign.pk, actor=ACTOR)
    return Drill(campaign.slug, _packets(campaign), key, provider)


def _app(run: str) -> ClientApp:
    slug = f"drill-{run}"
    if ClientApp.objects.filter(slug=slug).exists():
        raise ServiceError("run", "taken", _("There is a drill of this name already."))
    return ClientApp.objects.create(slug=slug, name=f"Drill {run}", is_drill=True)


def _approved(run: str, app: ClientApp, portions: Sequence[int]) -> Campaign:
    author, approver = (
        User.objects.create(username=f"drill-{run}-{name}", is_active=False)
        for name in ("author", "approver")
    )
    start = now() - dt.timedelta(minutes=1)
    campaign = services.campaign_create(
        slug=f"drill-{run}",
        name_zh=f"演练 {run}",
        name_en=f"Drill {run}",
        rules_zh="压力演练,没有真实的人参加。",
        rules_en="A drill: no real people take part.",
        budget_fen=sum(portions) * MEAN_FEN,
        starts_at=start,
        ends_at=start + LENGTH,
        client_apps=[app.pk],
        actor=ACTOR,
        created_by=author,
    )
    for number, count in enumerate(portions):
        services.campaign_packet_add(
            campaign_id=campaign.pk,
            actor=ACTOR,
            by=author,
            name=f"round {number}",
            strategy=Packet.Strategy.LUCKY,
            total_fen=count * MEAN_FEN,
            count=count,
            lane_count=max(1, min(MAX_LANES, count // PORTIONS_PER_LANE)),
            max_fen=LARGEST_FEN if count * MEAN_FEN > LARGEST_FEN else None,
        )
    campaign = services.campaign_submit(campaign_id=campaign.pk, by=author)
    services.campaign_approve(
        campaign_id=campaign.pk, version_hash=version_hash(campaign), by=approver
    )
    return campaign


def _provider(app: ClientApp) -> str | None:
    """An account at the sandbox for this app alone: whatever is withdrawn, no money moves."""
    if not settings.SANDBOX_URL:
        return None
    secret = {"secret": settings.SANDBOX_SECRET}
    account = ProviderAccount.objects.create(
        name=f"drill-{app.pk}",
        kind=ProviderAccount.Kind.SANDBOX,
        base_url=settings.SANDBOX_URL,
        credentials_encrypted=crypto.encrypt(json.dumps(secret).encode()),
        min_fen=SANDBOX.min_fen,
        max_fen=SANDBOX.max_fen,
        client_apps=[app.pk],
    )
    return account.name


def _packets(campaign: Campaign) -> list[str]:
    rows = Packet.objects.filter(campaign_link__campaign=campaign).order_by("campaign_link__order")
    return [packet.public_id for packet in rows]


def _key(app: ClientApp, label: str) -> dict[str, str]:
    kid, secret = f"drill-{secrets.token_hex(6)}", secrets.token_urlsafe(32)
    ClientKey.objects.create(
        kid=kid,
        client_app=app,
        alg=ClientKey.Algorithm.HS256,
        secret_encrypted=crypto.encrypt(secret.encode()),
        label=label,
    )
    return {"kid": kid, "secret": secret}
