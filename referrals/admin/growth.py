"""A campaign's growth in figures and charts. Pages read snapshots and say how fresh they are; they
count nothing themselves."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from campaign import board as campaign_board
from campaign.admin.board import forecast_words
from campaign.admin.shell import address_of, name_of
from campaign.models import Campaign, CampaignGrowth, Channel, Vehicle
from engine.lib.adminkit import ReadOnlyModelAdmin, moment, require
from engine.lib.clock import now
from engine.lib.money import yuan
from engine.staff.pages import page
from referrals.analytics import charts
from referrals.analytics.snapshots import EVERY_S, figures
from referrals.models import GrowthSnapshot

SEE = "campaign.view_campaign"
CAMPAIGNS_SHOWN = 30  # the newest
# Older figures of a campaign that is counted again every few minutes say that nobody counts.
OLD = dt.timedelta(minutes=30)
BARS_WITH_NUMBERS = 14
NONE = "–"
SIDES = ("invited", "cold")
DAYS_IN_S = 86_400


@admin.register(GrowthSnapshot)
class GrowthAdmin(ReadOnlyModelAdmin):
    """Snapshots have no pages of their own: in their place stand those of the campaigns."""

    def get_urls(self) -> list[URLPattern]:
        own = self.admin_site.admin_view
        return [
            path("", own(overview), name="referrals_growthsnapshot_changelist"),
            path("<uuid:campaign_id>/", own(growth), name="referrals_growth_of"),
        ]


def overview(request: HttpRequest) -> HttpResponse:
    """The campaigns that spread, each in a line."""
    require(request, SEE)
    rows = CampaignGrowth.objects.select_related("campaign").order_by("-campaign__created_at")
    return page(
        request,
        "referrals/growth_campaigns.html",
        _("Growth figures"),
        rows=[_row(growth.campaign) for growth in rows[:CAMPAIGNS_SHOWN]],
    )


def _row(campaign: Campaign) -> dict[str, Any]:
    found = figures(campaign.pk, ("funnel", "spread", "retention", "cost"))
    parts = found.parts
    return {
        "campaign": campaign,
        "name": name_of(campaign),
        "address": reverse("admin:referrals_growth_of", args=[campaign.pk]),
        "until": moment(found.until, campaign.timezone),
        "people": f"{parts['funnel']['people']:,}" if parts else NONE,
        "invited": f"{parts['funnel']['invited']:,}" if parts else NONE,
        "k": number(parts["spread"]["k"][0]) if parts else NONE,
        "kept": _kept(parts["retention"]["invited"][1]) if parts else NONE,
        "cost": amount(parts["cost"]["per_acquired_fen"]) if parts else NONE,
    }


def growth(request: HttpRequest, campaign_id: uuid.UUID) -> HttpResponse:
    require(request, SEE)
    campaign = get_object_or_404(Campaign, pk=campaign_id)
    found = figures(campaign.pk)
    context: dict[str, Any] = (
        {name: part(found.parts) for name, part in _PARTS.items()} if found.parts else {}
    )
    return page(
        request,
        "referrals/growth.html",
        _("Growth of %(campaign)s") % {"campaign": name_of(campaign)},
        campaign=campaign,
        spreads=CampaignGrowth.objects.filter(campaign=campaign).exists(),
        counted=bool(found.parts),
        until=moment(found.until, campaign.timezone),
        minutes=EVERY_S // 60,
        is_old=found.until is not None and _is_stale(campaign, found.until),
        channels=reverse("admin:referrals_channels_of", args=[campaign.pk]),
        back=address_of(campaign),
        forecast=_forecast(campaign, found.parts["burn"]) if found.parts else "",
        **context,
    )


def _is_stale(campaign: Campaign, until: dt.datetime) -> bool:
    return campaign.state in campaign_board.RUNNING and now() - until > OLD


# --- how numbers look -----------------------------------------------------------------------------


def number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else NONE


def amount(fen: int | None) -> str:
    return NONE if fen is None else yuan(fen)


def duration(seconds: float | None) -> str:
    """`3 d 4 h`, `2 h 05 min`, `12 min`, `40 s`."""
    if seconds is None:
        return NONE
    whole = round(seconds)
    days, hours, minutes = whole // DAYS_IN_S, whole % DAYS_IN_S // 3600, whole % 3600 // 60
    if days:
        return _("%(days)s d %(hours)s h") % {"days": days, "hours": hours}
    if hours:
        return _("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes}
    if minutes:
        return _("%(minutes)s min") % {"minutes": minutes}
    return _("%(seconds)s s") % {"seconds": whole}


def window(seconds: int) -> str:
    if seconds < DAYS_IN_S:
        return _("one hour")
    return _("one day") if seconds == DAYS_IN_S else _("seven days")


def side_label(side: str) -> str:
    return _("invited by a friend") if side == "invited" else _("came by themselves")


def _kept(one: dict[str, Any]) -> str:
    return percent(one["seen"], one["people"])


# --- the parts of the page ------------------------------------------------------------------------


def _tile(name: str, value: str, note: str = "") -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _tiles(parts: dict[str, Any]) -> list[dict[str, str]]:
    funnel, spread, cost = parts["funnel"], parts["spread"], parts["cost"]
    day_7 = {side: parts["retention"][side][1] for side in SIDES}
    in_words = {"window": window(spread["windows_s"][0])}
    return [
        _tile(_("People"), f"{funnel['people']:,}", _("in this campaign")),
        _tile(
            _("Invited"),
            f"{funnel['invited']:,}",
            _("%(share)s of all") % {"share": percent(funnel["invited"], funnel["people"])},
        ),
        _tile("K", number(spread["k"][0]), _("friends a person, within %(window)s") % in_words),
        _tile(_("Cycle time"), duration(spread["cycle"]["median_s"]), _("median")),
        _tile(
            _("Seen on day 7"),
            _kept(day_7["invited"]),
            _("%(share)s of those who came by themselves") % {"share": _kept(day_7["cold"])},
        ),
        _tile(
            _("Cost per new person"),
            amount(cost["per_acquired_fen"]),
            _("%(cost)s per friend seen on day 7")
            % {"cost": amount(cost["sides"]["invited"]["per_retained_fen"][1]["fen"])},
        ),
    ]


STEPS = ("visits", "joined", "claimed", "shared", "brought")


def _funnel(parts: dict[str, Any]) -> dict[str, Any]:
    rows, one_in = parts["funnel"]["channels"], parts["funnel"]["one_in"]
    most = max([1, *(row[step] for row in rows for step in STEPS)])
    ways = dict(Vehicle.choices)
    return {
        "one_in": one_in if one_in > 1 else 0,
        "rows": [
            {
                "channel": Channel(row["channel"]).label,
                "links": f"{row['links']:,}",
                "vehicles": " · ".join(
                    f"{ways[vehicle]} {count:,}"
                    for vehicle, count in sorted(row["vehicles"].items(), key=lambda one: -one[1])
                ),
                "steps": [
                    {
                        "count": f"{row[step]:,}",
                        "width": round(100 * row[step] / most),
                        "share": percent(row[step], row[before]) if before else "",
                    }
                    for step, before in zip(
                        STEPS, ("", "visits", "joined", "joined", "joined"), strict=True
                    )
                ],
            }
            for row in rows
        ],
    }


def _k(parts: dict[str, Any]) -> dict[str, Any]:
    spread = parts["spread"]
    found = []
    for place, window_s in enumerate(spread["windows_s"]):
        values = []
        for cohort in spread["cohorts"]:
            k = cohort["friends"][place] / cohort["people"] if cohort["people"] else 0.0
            is_open = not cohort["closed"][place]
            said = {
                "start": cohort["start"],
                "people": f"{cohort['people']:,}",
                "friends": f"{cohort['friends'][place]:,}",
            }
            hint = _("%(start)s: %(friends)s friends of %(people)s people") % said
            values.append(
                charts.Value(
                    cohort["start"][5:],
                    k,
                    number(k) if len(spread["cohorts"]) <= BARS_WITH_NUMBERS else "",
                    hint=f"{hint}, {_('still open')}" if is_open else hint,
                    is_open=is_open,
                )
            )
        found.append(
            {
                "window": window(window_s),
                "k": number(spread["k"][place]),
                "unsuspected": number(spread["k_unsuspected"][place]),
                "chart": charts.bars(values) if values else None,
            }
        )
    return {"windows": found, "hourly": spread["unit_s"] < DAYS_IN_S}


def _cascades(parts: dict[str, Any]) -> dict[str, Any]:
    spread = parts["spread"]
    sizes = spread["sizes"]
    lows = [low for low, _count in sizes]
    labels = [
        (f"{low}–{high - 1}" if high - 1 > low else str(low))
        for low, high in itertools.pairwise(lows)
    ] + [f"{lows[-1]}+"]
    return {
        "sizes": charts.bars(
            [
                charts.Value(label, count, f"{count:,}")
                for label, (_low, count) in zip(labels, sizes, strict=True)
            ]
        ),
        "depths": charts.bars(
            [
                charts.Value(str(depth), count, f"{count:,}")
                for depth, count in enumerate(spread["by_depth"])
            ]
        ),
        "facts": [
            _tile(_("Trees"), f"{spread['trees']:,}"),
            _tile(_("People in the largest"), f"{spread['largest']:,}"),
            _tile(_("Deepest"), f"{spread['deepest']:,}"),
            _tile(
                _("Structural virality"),
                number(spread["virality"]),
                _("%(number)s of the largest tree")
                % {"number": number(spread["virality_of_largest"])},
            ),
            _tile(
                _("Friends of friends and further"),
                NONE if spread["beyond_first"] is None else percent(spread["beyond_first"], 1),
            ),
            _tile(
                _("Cycle time"),
                duration(spread["cycle"]["median_s"]),
                _("nine of ten within %(time)s") % {"time": duration(spread["cycle"]["p90_s"])},
            ),
        ],
    }


def _retention(parts: dict[str, Any]) -> dict[str, Any]:
    kept = parts["retention"]
    values = [
        charts.Value(
            _("day %(day)s") % {"day": one["day"]},
            one["seen"] / one["people"] if one["people"] else 0.0,
            _kept(one),
            side_label(side),
            series=SIDES.index(side),
        )
        for pair in zip(kept["invited"], kept["cold"], strict=True)
        for side, one in zip(SIDES, pair, strict=True)
    ]
    return {
        "reports": kept["reports"],
        "chart": charts.bars(values, together=2),
        "rows": [
            {
                "label": side_label(side),
                "days": [
                    {
                        "share": _kept(one),
                        "counts": f"{one['seen']:,} / {one['people']:,}",
                        "young": f"{one['young']:,}" if one["young"] else "",
                    }
                    for one in kept[side]
                ],
            }
            for side in SIDES
        ],
    }


def _groups(parts: dict[str, Any]) -> dict[str, Any]:
    found = parts["groups"]
    return {
        **found,
        "rows": [{**row, "kept": [_kept(one) for one in row["days"]]} for row in found["groups"]],
    }


def _cost(parts: dict[str, Any]) -> dict[str, Any]:
    cost = parts["cost"]
    return {
        "facts": [
            (_("Spent"), yuan(cost["spent_fen"])),
            (_("of it paid into wallets"), yuan(cost["paid_fen"])),
            (_("of it not settled yet"), yuan(cost["unsettled_fen"])),
            (_("of it held"), yuan(cost["held_fen"])),
            (_("of it rewards"), yuan(cost["rewards_fen"])),
            (_("Forfeited, back in the campaign"), yuan(cost["forfeited_fen"])),
        ],
        "rows": [
            {
                "label": side_label(side),
                "fen": yuan(cost["sides"][side]["fen"]),
                "acquired": f"{cost['sides'][side]['acquired']:,}",
                "each": amount(cost["sides"][side]["per_acquired_fen"]),
                "retained": [amount(one["fen"]) for one in cost["sides"][side]["per_retained_fen"]],
            }
            for side in SIDES
        ],
        "acquired": f"{cost['acquired']:,}",
        "each": amount(cost["per_acquired_fen"]),
        "suspects": cost["suspects"],
    }


def _burn(parts: dict[str, Any]) -> charts.Burn | None:
    data = parts["burn"]
    ahead = None
    if data["per_minute_fen"] > 0 and data["points"]:
        at, fen = data["points"][-1]
        until = min(data["empty_s"] or data["ends_s"], data["ends_s"])
        ahead = (until, fen + data["per_minute_fen"] * (until - at) / 60)
    return charts.burn(data["points"], data["bound_fen"], ahead)


def _forecast(campaign: Campaign, data: dict[str, Any]) -> str:
    if campaign.state not in campaign_board.RUNNING:
        return ""
    empty = data["empty_s"]
    return forecast_words(
        campaign,
        campaign_board.Forecast(
            data["per_minute_fen"],
            dt.datetime.fromtimestamp(empty, dt.UTC) if empty else None,
            data["left_at_end_fen"],
        ),
    )


_PARTS = {
    "tiles": _tiles,
    "funnel": _funnel,
    "spread": _k,
    "cascades": _cascades,
    "retention": _retention,
    "groups": _groups,
    "cost": _cost,
    "burn": _burn,
}
