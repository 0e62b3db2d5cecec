"""Ticket rules: one ticket for an occasion, however it is reported, and no more than the caps."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from campaign.models import CampaignGrowth
from campaign.services import campaign_packet_remove
from engine.lib import clock
from engine.lib.errors import ServiceError
from engine.models import AuditEvent, ClientApp
from packets.models import Ticket
from packets.tickets import ticket_issue
from referrals.events import issuing
from referrals.events.receiving import Event, EventResult, events_receive
from referrals.events.rules import Wanted, ticket_rule_set
from referrals.models import Reward, TicketDue, TicketRule
from tests import world
from tests.admin import desk
from tests.api.conftest import _forget, app, door, visit  # noqa: F401 (fixtures)
from tests.api.doors import Visitor
from tests.campaign import stage
from tests.referrals.rewarding import claims, due_again, known, rewarding, sweep, ticketed
from tests.referrals.stage import app_of, bind

pytestmark = pytest.mark.django_db(transaction=True)
DAY = dt.timedelta(days=1)


def lucky_draw(app: ClientApp | None = None, **fields: Any) -> CampaignGrowth:  # noqa: F811
    """A campaign with a further packet that needs tickets."""
    return rewarding(app, ticketed={"total_fen": 5_000, "count": 50}, **fields)


def ruled(growth: CampaignGrowth, by: str, **fields: Any) -> TicketRule:
    wanted = Wanted(campaign=growth.campaign, packet=ticketed(growth), by=by, **fields)
    return ticket_rule_set(wanted=wanted, actor="test")


def reports(growth: CampaignGrowth, key: str, user: str, kind: str, **fields: Any) -> EventResult:
    fields.setdefault("at", clock.now())
    [answer] = events_receive(
        client_app_id=app_of(growth.campaign), events=[Event(key, user, kind, **fields)]
    )
    return answer.result


def reasons(growth: CampaignGrowth, user: str) -> list[str]:
    person = world.person(user, app_of(growth.campaign)).participant
    found = Ticket.objects.filter(packet=ticketed(growth), participant=person)
    return sorted(found.values_list("reason", flat=True))


def test_a_day_gives_one_ticket_however_it_is_seen() -> None:
    growth = lucky_draw()
    ruled(growth, "daily")

    claims(growth, "alice")
    for number in range(3):
        assert reports(growth, f"a{number}", "alice", "active") is EventResult.OK
    reports(growth, "b", "bob", "joined")
    sweep()
    sweep()

    assert len(reasons(growth, "alice")) == 1
    assert reasons(growth, "alice")[0].startswith("active on 2")
    assert reasons(growth, "bob") == []


def test_a_mission_gives_its_ticket_once_and_another_none() -> None:
    growth = lucky_draw()
    ruled(growth, "mission", mission="share")

    reports(growth, "1", "alice", "mission_done", mission="share")
    reports(growth, "2", "alice", "mission_done", mission="share")
    reports(growth, "3", "alice", "mission_done", mission="other")
    reports(growth, "4", "bob", "mission_done", mission="share", campaign=growth.campaign.slug)
    sweep()

    assert reasons(growth, "alice") == reasons(growth, "bob") == ["mission: share"]


def test_what_happened_before_the_rule_gives_nothing() -> None:
    growth = lucky_draw()
    reports(growth, "1", "alice", "mission_done", mission="share")
    claims(growth, "alice")
    ruled(growth, "mission", mission="share")
    ruled(growth, "daily")
    reports(growth, "2", "bob", "mission_done", mission="share", at=clock.now() - DAY)
    sweep()

    assert TicketDue.objects.count() == 0


def test_an_invite_gives_the_inviter_a_ticket_up_to_the_caps() -> None:
    growth = lucky_draw()
    ruled(growth, "invite", a_day=2, in_all=5)
    known(growth, "ann")
    for name in ("bob", "cem", "dan"):
        bind(growth, name, "ann")
        claims(growth, name)
    bind(growth, "idle", "ann")
    sweep()

    assert reasons(growth, "ann") == ["invited a friend"] * 2
    assert Counter(TicketDue.objects.values_list("state", flat=True)) == {"issued": 2, "capped": 1}


def test_a_shared_packet_opens_for_so_many_friends_and_the_sharer_earns_for_each() -> None:
    """Each friend has a ticket, claims with it, and that is what rewards the sharer."""
    growth = lucky_draw(shared_friends=2)
    ruled(growth, "friend", a_day=100, in_all=100)
    known(growth, "ann", "bob", "cem", "dan")
    for name in ("bob", "cem", "dan"):
        bind(growth, name, "ann")
        sweep()

    came = [name for name in ("bob", "cem", "dan") if reasons(growth, name)]
    assert came == ["bob", "cem"]
    for name in came:
        due = TicketDue.objects.get(
            state="issued", participant=world.person(name, app_of(growth.campaign)).participant
        )
        text = issuing_text(growth, name, due)
        who = world.person(name, app_of(growth.campaign))
        assert world.claim(ticketed(growth), who, ticket=text).result == "won"
    sweep()
    assert Reward.objects.filter(side="inviter", state="granted").count() == 2


def issuing_text(growth: CampaignGrowth, name: str, due: TicketDue) -> str:
    return ticket_issue(
        packet_id=due.rule.packet_id,
        client_app_id=app_of(growth.campaign),
        subject=name,
        key=issuing.ticket_key(due),
        reason="came with a friend's link",
    )


def test_the_device_fetches_its_tickets(
    app: ClientApp,  # noqa: F811
    visit: Callable[..., Visitor],  # noqa: F811
) -> None:
    growth = lucky_draw(app)
    ruled(growth, "daily")
    reports(growth, "1", "alice", "active")
    known(growth, "ann")
    bind(growth, "alice", "ann")
    claims(growth, "alice")
    sweep()
    packet = ticketed(growth)
    alice = visit("alice")

    [ticket] = alice.get("/me/tickets").json["results"]  # the reward's isn't hers to show
    assert (ticket["packet"], ticket["claim"]) == (packet.public_id, None)
    won = alice.post(f"/packets/{packet.public_id}/claims", {"ticket": ticket["ticket"]}).json
    assert won["result"] == "won"
    [used] = alice.get("/me/tickets").json["results"]
    assert used["claim"] == won["claim"]["id"]
    assert visit("bob").get("/me/tickets").json["results"] == []


# --- caps at once ---------------------------------------------------------------------------------


def _last_of_a_day(monkeypatch: pytest.MonkeyPatch, meet_s: float) -> int:
    """Two occasions of one person are decided at once, and the day gives one ticket."""
    growth = lucky_draw()
    rule = ruled(growth, "mission", mission="a")
    reports(growth, "a", "alice", "mission_done", mission="a")
    [first] = TicketDue.objects.all()
    second = TicketDue.objects.create(
        rule=rule,
        participant=first.participant,
        owner=first.owner,
        client_app_id=first.client_app_id,
        occasion="a again",
        day=first.day,
    )
    both, real = threading.Barrier(2), issuing._is_capped

    def count(row: TicketDue) -> bool:
        found = real(row)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(meet_s)
        return found

    monkeypatch.setattr(issuing, "_is_capped", count)
    runs = [partial(issuing.due_run, due_id=row.pk) for row in (first, second)]
    for result in world.together(runs, threads=2):
        assert not isinstance(result, BaseException), result
    return Ticket.objects.count()


def test_two_at_once_do_not_both_get_the_last_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    # The lock keeps one out while the other waits for it here.
    assert _last_of_a_day(monkeypatch, meet_s=0.5) == 1


@pytest.mark.control
def test_without_the_owners_lock_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuing, "_alone", lambda row: None)
    assert _last_of_a_day(monkeypatch, meet_s=30.0) == 2


def test_deciding_again_at_once_issues_one_ticket() -> None:
    growth = lucky_draw()
    ruled(growth, "daily")
    reports(growth, "1", "alice", "active")
    due = TicketDue.objects.get()

    said = world.together([partial(issuing.due_run, due_id=due.pk)] * 40)
    due_again()
    sweep()

    assert set(said) == {"issued"}
    assert Ticket.objects.count() == 1


# --- the rules themselves -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"by": "mission"}, "required"),
        ({"by": "daily", "mission": "m"}, "not_here"),
        ({"by": "daily", "a_day": 0}, "bounds"),
        ({"by": "daily", "in_all": 1_001}, "bounds"),
        ({"by": "friend"}, "nothing_shared"),
    ],
    ids=["no mission", "a mission", "none a day", "too many", "nothing shared"],
)
def test_a_rule_that_means_nothing_is_refused(fields: dict[str, Any], code: str) -> None:
    growth = lucky_draw()
    with pytest.raises(ServiceError) as refused:
        ruled(growth, **fields)
    assert refused.value.code == code
    assert TicketRule.objects.count() == 0


def test_a_packet_of_rewards_gives_no_tickets() -> None:
    growth = lucky_draw()
    assert growth.inviter_packet is not None
    with pytest.raises(ServiceError) as refused:
        ticket_rule_set(
            wanted=Wanted(campaign=growth.campaign, packet=growth.inviter_packet, by="daily"),
            actor="test",
        )
    assert refused.value.code == "reward"


@pytest.mark.parametrize(
    "worse", [{"in_all": 29}, {"a_day": 1}, {"mission": "share twice"}, {"by": "daily"}]
)
def test_a_running_campaigns_rule_only_gives_more(worse: dict[str, Any]) -> None:
    growth = lucky_draw()
    rule = ruled(growth, "mission", mission="share", a_day=2)
    known_as = {"campaign": growth.campaign, "packet": ticketed(growth), "by": "mission"}
    said = {"mission": "share", "a_day": 2, **worse}
    if worse.get("by"):
        del said["mission"]

    with pytest.raises(ServiceError) as refusal:
        ticket_rule_set(wanted=Wanted(**{**known_as, **said}), actor="test", rule_id=rule.pk)
    assert refusal.value.code == "not_in_favour"

    more = Wanted(**known_as, mission="share", a_day=3, in_all=31, is_active=False)
    assert ticket_rule_set(wanted=more, actor="test", rule_id=rule.pk).a_day == 3


def test_staff_write_a_rule_and_read_it_as_a_sentence() -> None:
    growth = lucky_draw()
    ann, page = desk.at_desk(), "/admin/referrals/ticketrule/"
    words = {
        "campaign": growth.campaign_id,
        "packet_id": ticketed(growth).public_id,
        "by": "daily",
        "a_day": "1",
        "in_all": "7",
        "is_active": "on",
    }
    assert ann.post(f"{page}add/", {**words, "mission": "m"}).status_code == 200
    assert TicketRule.objects.count() == 0
    assert ann.post(f"{page}add/", words).status_code == 302

    rule = TicketRule.objects.get()
    assert "At most 1 a day, 7 in all." in ann.get(page).content.decode()
    assert (
        "每人最多：每天 1 张，总共 7 张。"
        in desk.at_desk(lang="zh-hans").get(page).content.decode()
    )
    assert ann.get(f"{page}{rule.pk}/change/").status_code == 200
    assert AuditEvent.objects.filter(action="ticket_rule.set").count() == 1


def test_staff_see_rewards_and_events() -> None:
    growth = lucky_draw()
    known(growth, "ann")
    bind(growth, "bob", "ann")
    claims(growth, "bob")
    sweep()
    ann = desk.at_desk()

    rewards = ann.get("/admin/referrals/reward/?q=ann").content.decode()
    assert "the inviter" in rewards and "¥1.00" in rewards
    assert "the friend" not in rewards
    assert "known" in ann.get("/admin/referrals/serverevent/?q=ann").content.decode()
    assert ann.get("/admin/referrals/reward/?state=granted").status_code == 200


def test_a_packet_that_a_rule_names_is_not_taken_out_of_its_draft() -> None:
    campaign = stage.draft()
    packet = stage.add_packet(campaign, needs_ticket=True)
    ticket_rule_set(wanted=Wanted(campaign=campaign, packet=packet, by="daily"), actor="x")

    with pytest.raises(ServiceError) as caught:
        campaign_packet_remove(campaign_id=campaign.pk, packet_id=packet.pk, actor="x")

    assert (caught.value.field, caught.value.code) == ("packet", "in_use")
    assert campaign.links.filter(packet=packet).exists()
