"""Members of staff at their desks: a client that is logged in, and forms filled in."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any
from zoneinfo import ZoneInfo

from django.http import HttpResponse
from django.test import Client

from campaign.models import WAYS, Campaign
from engine.lib import clock
from engine.models import ClientApp
from engine.staff import sessions
from tests.campaign import stage

HOME = "/admin/campaign/campaign/"
ZONE = ZoneInfo("Asia/Shanghai")


def at_desk(group: str = "operations", name: str = "", lang: str = "en") -> Client:
    """Somebody of this group, logged in a moment ago."""
    assert sessions.begin  # whoever logs in has typed the password: it is listened for from here on
    client = Client(headers={"Accept-Language": lang})
    client.force_login(stage.member(group, name))
    return client


def local(after: dt.timedelta) -> str:
    """A time from now as it is typed in the campaign's zone."""
    return f"{(clock.now() + after).astimezone(ZONE):%Y-%m-%dT%H:%M}"


def form(app: ClientApp, *packets: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A campaign's form that can be saved; with fields and packets instead."""
    found: dict[str, Any] = {
        "slug": "spring",
        "name_zh": "春节",
        "name_en": "Spring",
        "budget": "1,000.00",
        "starts_at": local(dt.timedelta(hours=1)),
        "ends_at": local(dt.timedelta(hours=25)),
        "timezone": "Asia/Shanghai",
        "client_apps": [app.pk],
        "rules_zh": "每人限领一次",
        "rules_en": "",
        "odds_zh": "人人有份",
        "odds_en": "",
        "packets-TOTAL_FORMS": str(len(packets or [{}])),
        "packets-INITIAL_FORMS": "0",
        "then": "save",
        **fields,
    }
    for number, packet in enumerate(packets or [{}]):
        typed = {"strategy": "lucky", "total": "100", "count": "10", "evenness": "2"}
        for name, value in {**typed, **packet}.items():
            found[f"packets-{number}-{name}"] = value
    return found


def refusals(answer: HttpResponse) -> dict[str, str]:
    """The words beside each field of a page of ours."""
    html = answer.content.decode()
    found = {}
    for part in html.split('data-field="')[1:]:
        name = part.split('"', 1)[0]
        said = re.search(r'data-error role="alert">([^<]*)<', part)
        if said and said[1].strip() and "__prefix__" not in name:
            found[name] = said[1].strip()
    return found


def page_of(campaign: Campaign) -> str:
    return f"{HOME}{campaign.pk}/change/"


def step(client: Client, campaign: Campaign, act: str, **typed: Any) -> HttpResponse:
    """Press the button of the page that asks once more."""
    campaign.refresh_from_db()
    return client.post(  # type: ignore[return-value]
        f"{HOME}{campaign.pk}/do/{act}/",
        {"version": campaign.version, "typed": campaign.slug, **typed},
    )


def growth_form(**fields: Any) -> dict[str, Any]:
    """A campaign's growth as its page sends it; with fields instead."""
    return {
        "is_on": "on",
        "attribution": "last",
        "window_days": "7",
        "qualifying": "first_claim",
        "inviter_cap": "20",
        "depth": "1",
        "shared_friends": "0",
        "visits_per_link_hour": "1000",
        "cooldown_minutes": "0",
        "complaint_per_mille": "5",
        "complaint_min_visits": "200",
        "ways": list(WAYS),
        "then": "save",
        **fields,
    }
