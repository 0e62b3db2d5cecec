"""A campaign's claims as CSV: streamed lane by lane, in bounded memory, with its progress to see.

The file opens in spreadsheets as it is: UTF-8 with a mark, amounts in whole fen, and no cell that a
spreadsheet would run as a formula.
"""

from __future__ import annotations

import contextlib
import secrets
import uuid
from collections.abc import Iterator
from typing import Any

import redis.exceptions
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from campaign.admin.shell import address_of
from campaign.models import Campaign
from engine.lib.adminkit import zone_label
from engine.lib.audit import audit_record
from engine.lib.redis import stock as stock_client
from engine.lib.spreadsheet import MARK, rows_as_csv
from engine.staff.pages import page, user_of
from packets.models import Lane

ROWS_A_RANGE = 2_000
PROGRESS_KEPT_S = 3_600
COLUMNS = (
    "claim", "packet", "user", "serial", "amount_fen", "tier", "lane", "epoch", "index",
    "committed_at",
)  # fmt: skip
_RANGE = """
    SELECT claim.id, claim.packet_id, who.subject, claim.serial, claim.amount_fen, claim.tier,
           claim.epoch, claim.index, claim.committed_at AT TIME ZONE %s
      FROM packets_claim AS claim
      LEFT JOIN packets_participant AS who ON who.digest = claim.participant
     WHERE claim.lane_id = %s AND claim.position > %s AND claim.position <= %s
     ORDER BY claim.position
"""


def _campaign(request: HttpRequest, object_id: str) -> Campaign:
    if not user_of(request).has_perm("packets.view_claim"):
        raise PermissionDenied
    return get_object_or_404(Campaign, pk=object_id)


def export(request: HttpRequest, object_id: str) -> HttpResponse:
    """The page with the button and the bar."""
    campaign = _campaign(request, object_id)
    lanes = Lane.objects.filter(packet__campaign_link__campaign=campaign)
    rows = lanes.aggregate(n=Sum("claimed_count"))["n"] or 0
    return page(
        request,
        "campaign/export.html",
        _("Export claims"),
        campaign=campaign,
        rows=f"{rows:,}",
        columns=COLUMNS,
        zone=zone_label(campaign.timezone),
        token=secrets.token_hex(8),
        back=address_of(campaign),
    )


def csv(request: HttpRequest, object_id: str) -> StreamingHttpResponse:
    """The file itself. Personal data leaves the house here, so the audit log knows of it."""
    campaign = _campaign(request, object_id)
    audit_record(
        actor=f"staff:{user_of(request).get_username()}",
        action="campaign.export",
        object_type="campaign",
        object_id=campaign.pk.hex,
        request=request,
    )
    response = StreamingHttpResponse(
        _file(campaign, _key(request, campaign)), content_type="text/csv; charset=utf-8"
    )
    response["Content-Disposition"] = f'attachment; filename="{campaign.slug}-claims.csv"'
    response["Cache-Control"] = "no-store"
    return response


def progress(request: HttpRequest, object_id: str) -> HttpResponse:
    campaign = _campaign(request, object_id)
    done, total = 0, 0
    try:
        found = stock_client().get(_key(request, campaign))
        if isinstance(found, bytes):
            done, total = (int(number) for number in found.decode().split("/"))
    except redis.exceptions.RedisError:
        pass  # the bar stands still; the file comes all the same
    return JsonResponse(
        {
            "percent": done * 100 // total if total else 0,
            "text": f"{done:,} / {total:,}" if total else "",
            "finished": bool(total) and done >= total,
        },
        headers={"Cache-Control": "no-store"},
    )


def _key(request: HttpRequest, campaign: Campaign) -> str:
    token = "".join(c for c in request.GET.get("token", "") if c in "0123456789abcdef")[:32]
    return f"export:{campaign.pk.hex}:{user_of(request).pk}:{token}"


def _file(campaign: Campaign, key: str) -> Iterator[bytes]:
    lanes = list(
        Lane.objects.filter(packet__campaign_link__campaign=campaign)
        .order_by("packet__campaign_link__order", "number")
        .values_list("pk", "number", "claimed_count")
    )
    total, done = sum(count for _pk, _number, count in lanes), 0
    _tell(key, 0, total)
    yield MARK + rows_as_csv([[*COLUMNS[:-1], f"committed_at {campaign.timezone}"]])
    for lane_id, number, count in lanes:
        for start in range(0, count, ROWS_A_RANGE):
            with connection.cursor() as cursor:
                cursor.execute(
                    _RANGE,
                    [campaign.timezone, lane_id, start, min(start + ROWS_A_RANGE, count)],
                )
                rows = cursor.fetchall()
            yield rows_as_csv([_row(number, row) for row in rows])
            done += len(rows)
            _tell(key, done, total)
    # A campaign without claims is finished too.
    _tell(key, max(done, 1), max(total, 1))


def _row(lane: int, row: tuple[Any, ...]) -> list[Any]:
    claim_id, packet_id, subject, serial, amount_fen, tier, epoch, index, at = row
    assert isinstance(claim_id, uuid.UUID) and isinstance(packet_id, uuid.UUID)
    return [
        claim_id.hex, packet_id.hex, subject or "", serial, amount_fen, tier, lane, epoch,
        index, f"{at:%Y-%m-%d %H:%M:%S.%f}",
    ]  # fmt: skip


def _tell(key: str, done: int, total: int) -> None:
    with contextlib.suppress(redis.exceptions.RedisError):  # progress is a comfort
        stock_client().set(key, f"{done}/{total}", ex=PROGRESS_KEPT_S)
