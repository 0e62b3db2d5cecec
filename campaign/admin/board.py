"""The live board's numbers, asked for every few seconds by the page `campaign/board.html`."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import Any
from zoneinfo import ZoneInfo

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext as _

from campaign import board, selectors
from campaign.admin.shell import address_of
from campaign.models import Campaign
from engine.lib.adminkit import moment
from engine.lib.clock import now
from engine.lib.money import yuan
from engine.staff.pages import user_of
from packets.models import ClaimState


def data(request: HttpRequest, object_id: str | None = None) -> HttpResponse:
    """Of one campaign, or of all that run."""
    if not user_of(request).has_perm("campaign.view_campaign"):
        raise PermissionDenied
    if object_id is None:
        found = _overall()
    else:
        found = _single(get_object_or_404(Campaign.objects.select_related("account"), pk=object_id))
    found["words"] = words()
    return JsonResponse(found, headers={"Cache-Control": "no-store"})


def _overall() -> dict[str, Any]:
    standings = board.standings()
    speed = board.speed()
    bound = sum(s.bound_fen for s in standings)
    claimed = sum(s.claimed_fen for s in standings)
    unsettled = sum(s.unsettled for s in standings)
    lag = board.settlement_lag_s() if unsettled else 0
    parked = len(
        ClaimState.objects.filter(state=ClaimState.State.PARKED).values("pk")[:_PARKED_COUNTED]
    )
    return {
        "tiles": [
            _tile(_("Running campaigns"), f"{len(standings):,}"),
            _tile(_("Won by people"), yuan(claimed), _("of %(bound)s") % {"bound": yuan(bound)}),
            _tile(_("Wins a second"), f"{speed.won_per_s:,.1f}", _("last ten seconds")),
            _tile(_("Other answers a second"), f"{speed.refused_per_s:,.1f}"),
            _tile(
                _("Waiting for settlement"),
                f"{unsettled:,}",
                _("the oldest for %(seconds)s s") % {"seconds": lag} if unsettled else _("none"),
                bad=lag > _LAG_BAD_S,
            ),
            _tile(_("Settlements refused"), _bounded(parked), bad=parked > 0),
        ],
        "speed": _speed(speed),
        "campaigns": [_row(s) for s in standings],
        "at": _clock(timezone.get_current_timezone()),
    }


_PARKED_COUNTED = 1_000
_LAG_BAD_S = 30


def _bounded(number: int) -> str:
    return f"{number:,}" + ("+" if number >= _PARKED_COUNTED else "")


def _row(standing: board.Standing) -> dict[str, Any]:
    minutes = int((standing.ends_at - now()).total_seconds()) // 60
    return {
        "name": standing.name,
        "slug": standing.slug,
        "state": standing.state,
        "state_label": str(Campaign.State(standing.state).label),
        "address": address_of(Campaign(pk=standing.id)),
        "claimed": yuan(standing.claimed_fen),
        "bound": yuan(standing.bound_fen),
        "percent": standing.percent,
        "portions": f"{standing.claimed_count:,} / {standing.portions:,}",
        "unsettled": f"{standing.unsettled:,}",
        "ends": moment(standing.ends_at, standing.timezone),
        "left": _left(minutes),
        "soon": minutes < _SOON_MIN,
    }


_SOON_MIN = 60


def _left(minutes: int) -> str:
    """`2 d 4 h`, `3 h 20 min`, `12 min`."""
    if minutes < 0:
        return _("over")
    days, hours = minutes // 1440, minutes % 1440 // 60
    if days:
        return _("%(days)s d %(hours)s h") % {"days": days, "hours": hours}
    if hours:
        return _("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes % 60}
    return _("%(minutes)s min") % {"minutes": minutes}


def _single(campaign: Campaign) -> dict[str, Any]:
    (standing,) = board.standings(campaign.pk)
    packets = board.packets_of(campaign.pk)
    speed = board.speed(packets)
    forecast = board.forecast(campaign, standing)
    money = selectors.campaign_money(campaign)
    lag = board.settlement_lag_s(campaign.pk) if money.unsettled_count else 0
    zone = ZoneInfo(campaign.timezone)
    running = campaign.state in board.RUNNING
    return {
        "state": campaign.state,
        "tiles": [
            _tile(
                _("Won by people"),
                yuan(money.claimed_fen),
                _("%(percent)s%% of %(bound)s")
                % {"percent": standing.percent, "bound": yuan(standing.bound_fen)},
            ),
            _tile(
                _("Portions"),
                f"{money.claimed_count:,}",
                _("of %(count)s") % {"count": f"{standing.portions:,}"},
            ),
            _tile(_("Not bound in packets"), yuan(money.free_fen)),
            _tile(
                _("Wins a second"),
                f"{speed.won_per_s:,.1f}",
                _("%(number)s other answers") % {"number": f"{speed.refused_per_s:,.1f}"},
            ),
            _tile(
                _("Waiting for settlement"),
                f"{money.unsettled_count:,}",
                _("the oldest for %(seconds)s s") % {"seconds": lag}
                if money.unsettled_count
                else _("none"),
                bad=lag > _LAG_BAD_S,
            ),
            _tile(_("Settlements refused"), f"{money.parked_count:,}", bad=money.parked_count > 0),
        ],
        "percent": standing.percent,
        "speed": _speed(speed),
        "burn": {
            "points": [[int(at.timestamp()), fen] for at, fen in board.burn(campaign, standing)],
            "bound": standing.bound_fen,
            "ends": int(campaign.ends_at.timestamp()),
            "empty": int(forecast.empty_at.timestamp()) if forecast.empty_at else None,
            "per_minute": forecast.fen_per_minute,
            "offset_s": int((now().astimezone(zone).utcoffset() or _ZERO).total_seconds()),
        },
        "forecast": forecast_words(campaign, forecast) if running else "",
        "at": _clock(zone),
    }


_ZERO = dt.timedelta()


def forecast_words(campaign: Campaign, forecast: board.Forecast) -> str:
    if forecast.fen_per_minute <= 0:
        return _("Nobody has claimed in the last minutes: no forecast.")
    speed = yuan(forecast.fen_per_minute)
    if forecast.empty_at is not None:
        return _("At %(speed)s a minute the packets are empty at %(at)s.") % {
            "speed": speed,
            "at": moment(forecast.empty_at, campaign.timezone),
        }
    return _("At %(speed)s a minute %(left)s will be left at the end.") % {
        "speed": speed,
        "left": yuan(forecast.left_at_end_fen),
    }


def _tile(name: str, value: str, note: str = "", *, bad: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "note": note, "bad": bad}


def _speed(speed: board.Speed) -> dict[str, Any]:
    found = asdict(speed)
    labels = result_labels()
    return {
        "seconds": [f"-{speed.seconds[-1] - s + board.SETTLING_S} s" for s in found["seconds"]],
        "lines": [
            {"label": labels["won"], "values": found["won"]},
            *(
                {"label": labels.get(kind, kind), "values": line}
                for kind, line in found["refused"].items()
            ),
        ],
    }


def result_labels() -> dict[str, str]:
    return {
        "won": _("won"),
        "sold_out": _("sold out"),
        "not_eligible": _("not eligible"),
        "paused": _("paused"),
        "busy": _("busy"),
        "ended": _("ended"),
        "not_started": _("not started"),
        "over_limit": _("over a limit"),
        "other": _("other answers"),
    }


def _clock(zone: Any) -> str:
    return f"{now().astimezone(zone):%H:%M:%S}"


def words() -> dict[str, str]:
    """What the script says."""
    return {
        "claimed": _("Won by people"),
        "forecast": _("Forecast"),
        "bound": _("Bound in packets"),
        "offline": _("No answer at the moment; trying again."),
        "nothing": _("No campaign is running."),
        "updated": _("Updated"),
    }
