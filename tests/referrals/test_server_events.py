"""POST /server/events: a thousand at once, each once, each answered for itself."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from campaign.models import Campaign
from engine.lib import clock
from engine.lib.clock import rfc3339
from engine.models import ClientApp
from referrals.models import ServerEvent
from tests import world
from tests.api.conftest import _forget, app, door, server, visit  # noqa: F401 (fixtures)
from tests.api.doors import Visitor
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)
Server = Callable[..., Visitor]
ROUTE = "/server/events"


def event(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "user": "alice",
        "kind": "active",
        "at": rfc3339(clock.now()),
        **fields,
    }


@pytest.fixture
def send(server: Server) -> Callable[..., Any]:  # noqa: F811
    back_end = server("events")
    return lambda *events: back_end.post(ROUTE, {"events": list(events)})


@pytest.fixture
def campaign(app: ClientApp) -> Campaign:  # noqa: F811
    return stage.live(app)


def test_an_event_is_taken_once(send: Callable[..., Any], campaign: Campaign) -> None:
    one = event(1, campaign=campaign.slug)
    first = send(one, one, event(2, kind="joined"))
    again = send(event(2, kind="mission_done", mission="m"), one)

    assert first.status == again.status == 200
    assert [answer["result"] for answer in first.json["results"]] == ["ok", "duplicate", "ok"]
    assert again.json["results"] == [
        {"id": "e2", "result": "invalid", "code": "id_reused"},
        {"id": "e1", "result": "duplicate"},
    ]
    row = ServerEvent.objects.get(key="e1")
    assert (row.campaign_id, row.kind, row.mission) == (campaign.pk, "active", "")
    assert ServerEvent.objects.count() == 2


def test_what_is_wrong_is_named_and_holds_nothing_up(
    send: Callable[..., Any],
    app: ClientApp,  # noqa: F811
) -> None:
    now = clock.now()
    others = stage.live(stage.make_app())
    draft = stage.draft(app)
    wrong = {
        "id": event(id=""),
        "user": event(2, user="a\nb"),
        "kind": event(3, kind="Active!"),
        "mission": event(4, mission="a\nb"),
        "mission_required": event(5, kind="mission_done"),
        "unknown_campaign": event(6, campaign="no-such"),
        "in_the_future": event(7, at=rfc3339(now + dt.timedelta(hours=1))),
        "too_old": event(8, at=rfc3339(now - dt.timedelta(days=91))),
    }
    answer = send(
        *wrong.values(),
        event(9, campaign=others.slug),
        event(10, campaign=draft.slug),
        event(11, kind="watched_video"),
    )

    codes = [result.get("code") for result in answer.json["results"]]
    assert codes == [*wrong, "unknown_campaign", "unknown_campaign", None]
    assert list(ServerEvent.objects.values_list("key", flat=True)) == ["e11"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"events": []}, 422),
        ({"events": [event(n) for n in range(1_001)]}, 422),
        ({"events": [event(at="2026-01-01T00:00:00")]}, 422),
        ({"events": [event(surprise=1)]}, 422),
        ({"events": [event(user="a" * 129)]}, 422),
        ({}, 422),
    ],
    ids=["none", "too many", "no zone", "unknown field", "long user", "no list"],
)
def test_a_body_that_means_nothing_is_refused_whole(
    server: Server,  # noqa: F811
    body: dict[str, Any],
    status: int,
) -> None:
    assert server("events").post(ROUTE, body).status == status
    assert ServerEvent.objects.count() == 0


def test_only_a_back_end_with_the_scope(server: Server, visit: Callable[..., Visitor]) -> None:  # noqa: F811
    assert server("tickets").post(ROUTE, {"events": [event()]}).status == 403
    assert visit("alice").post(ROUTE, {"events": [event()]}).status == 401


def test_a_thousand_at_once_from_many_are_each_taken_once(send: Callable[..., Any]) -> None:
    """The same thousand, eight times at once, in any order: nobody waits in a circle."""
    events = [event(n, user=f"u{n % 50}") for n in range(1_000)]
    bodies = [events[part * 125 :] + events[: part * 125] for part in range(8)]

    answers = world.together([lambda body=body: send(*body) for body in bodies], threads=8)

    said: Counter[str] = Counter()
    for answer in answers:
        assert not isinstance(answer, BaseException), answer
        assert answer.status == 200, answer.json
        said.update(result["result"] for result in answer.json["results"])
    assert said == {"ok": 1_000, "duplicate": 7_000}
    assert ServerEvent.objects.count() == 1_000
