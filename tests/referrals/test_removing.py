"""A drill is removed, and everything else is as it was: row by row, beside real data."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from psycopg import sql as pgsql

from campaign.drills import drill_make
from campaign.models import Campaign, CampaignGrowth, Notice
from engine.lib import sql
from engine.lib.auth import Caller
from engine.lib.clock import now
from engine.lib.ids import participant_digest
from engine.lib.redis import stock as stock_client
from engine.models import ClientApp, IdempotencyRecord, OutboxEvent
from packets import settlement
from packets.invariants import invariants_check
from packets.models import Account, PacketTarget, ShareTouch, Transfer
from packets.payouts.withdrawals import payout_create
from packets.people_packets import Wanted, people_packet_create
from packets.wallets import wallet_of
from referrals.models import (
    CircleTry,
    Identity,
    Referral,
    RiskCase,
    RiskMember,
    ServerEvent,
    ShareLink,
    Visit,
)
from referrals.removing import plan
from referrals.removing.removal import DrillScope, RemovalRefused, drill_remove, scope_of
from tests import world
from tests.campaign import stage
from tests.conftest import _become
from tests.guards import without_guard
from tests.packets.payouts.stage import provider_account

pytestmark = pytest.mark.django_db(transaction=True)

SLUG = "drill-night"
PEOPLE = ("ann", "ben", "cem")
# What differs after a drill and its removal: nothing but the log of both, and sequences.
NAMED = {"engine_auditevent", "engine_audithead"}


@pytest.fixture(autouse=True)
def _sandbox(settings: Any) -> None:
    settings.SANDBOX_URL, settings.SANDBOX_SECRET = "http://127.0.0.1:9", "s" * 16
    settings.PEOPLE_MONEY_AGE_H = 0


@contextmanager
def as_owner() -> Iterator[None]:
    _become("laisee_owner")
    try:
        yield
    finally:
        _become("laisee_app")


def dump(superuser_dsn: str) -> dict[str, list[str]]:
    """Every row of every table, as text and in order."""
    with psycopg.connect(superuser_dsn) as link:
        tables = link.execute(
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1"
        ).fetchall()
        return {
            table: [
                str(row[0])
                for row in link.execute(
                    pgsql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(
                        pgsql.Identifier(str(table))
                    )
                ).fetchall()
            ]
            for (table,) in tables
        }


def held(who: Caller) -> int:
    wallet = wallet_of(who.participant)
    return wallet.balance_fen if wallet else 0


def night(campaign: Campaign, provider: str, receives: str) -> None:
    """A journey of three people: shared links, wins, withdrawals, a packet of one's own."""
    app = campaign.client_apps.get()
    growth, _ = CampaignGrowth.objects.update_or_create(campaign=campaign, defaults={"is_on": True})
    people = {name: world.person(name, app.pk) for name in PEOPLE}
    packet = stage.first_packet(campaign)
    for who in people.values():
        assert world.claim(packet, who).result == "won"
    for lane in packet.lanes.all():
        settlement.settle_lane(lane.pk)
    links = [link_of(growth, who) for who in people.values()]
    ben = edge(links[0], people["ben"], None)
    edge(links[1], people["cem"], ben)
    ann = people["ann"].participant
    # Whoever got most of what was given has an average portion at least.
    rich = max(people.values(), key=held)
    assert held(rich) >= 100
    payout_create(
        participant=rich.participant, client_app_id=app.pk, amount_fen=50, provider=provider,
        payee_account=receives, key="out",
    )  # fmt: skip
    people_packet_create(sender=rich, wanted=Wanted("fixed", 50, 2), key="gift")
    for table in (
        Identity(participant=ann, kind="device", digest=b"d" * 16, key_id="k",
                 first_seen=dt.date(2026, 1, 1), last_seen=dt.date(2026, 1, 1)),
        CircleTry(campaign=campaign, invitee=ann, inviter=people["cem"].participant),
        ServerEvent(client_app_id=app.pk, key="e", participant=ann, kind="active", at=now()),
        PacketTarget(packet=packet, participant=ann),
        ShareTouch(claim_id=uuid.uuid4(), client_app_id=app.pk, code="c"),
        Notice(user=stage.member(), campaign=campaign, kind=Notice.Kind.APPROVED),
        IdempotencyRecord(principal=people["ann"].principal, key="i", route="r", fingerprint="f",
                          run=uuid.uuid4(), lease_until=now(), created_at=now()),
        OutboxEvent(client_app=app, kind="claim.settled", key="o", payload={}),
        case := RiskCase(campaign=campaign, score=50),
        RiskMember(case=case, campaign=campaign, participant=ann),
    ):  # fmt: skip
        table.save(force_insert=True)


def link_of(growth: CampaignGrowth, who: Caller) -> ShareLink:
    link = ShareLink.objects.create(
        campaign=growth.campaign, participant=who.participant, client_app_id=who.client_app_id,
        channel="wechat", code=uuid.uuid4().hex[:10],
    )  # fmt: skip
    Visit.objects.create(link=link, campaign=growth.campaign, vehicle="link", click_id=uuid.uuid4())
    return link


def edge(link: ShareLink, friend: Caller, parent: Referral | None) -> Referral:
    return Referral.objects.create(
        campaign=link.campaign, client_app_id=link.client_app_id, invitee=friend.participant,
        inviter=link.participant, link=link, parent=parent, source="click",
        root=parent.root if parent else link.participant, depth=parent.depth + 1 if parent else 1,
    )  # fmt: skip


def a_drill() -> DrillScope:
    made = drill_make(run="night", portions=[len(PEOPLE), 5])
    assert made.provider is not None
    night(Campaign.objects.get(slug=SLUG), made.provider, "ann@sandbox")
    return scope_of(SLUG)


def a_real_campaign() -> Campaign:
    campaign = stage.draft()
    stage.add_packet(campaign, total_fen=100 * len(PEOPLE), count=len(PEOPLE))
    campaign = stage.launch(campaign)
    rail = provider_account("bank", base_url="http://127.0.0.1:9", client_apps=[])
    night(campaign, rail.name, "ann@bank")
    return campaign


def remove(scope: DrillScope, progress: Callable[[str, int], None] | None = None) -> dict[str, int]:
    with as_owner():
        return drill_remove(scope, progress=progress or (lambda table, count: None))


def differing(before: dict[str, list[str]], after: dict[str, list[str]]) -> set[str]:
    return {table for table in before if before[table] != after[table]}


def test_a_removed_drill_leaves_everything_else_as_it_was(superuser_dsn: str) -> None:
    a_real_campaign()
    before = dump(superuser_dsn)
    keys = set(stock_client().scan_iter("lane:*"))
    scope = a_drill()
    filled = differing(before, dump(superuser_dsn)) - NAMED
    assert len(filled) >= 25 and set(stock_client().scan_iter("lane:*")) > keys
    assert filled <= {one.table for one in plan.rows()}
    assert invariants_check().holds
    removed = remove(scope)
    assert differing(before, dump(superuser_dsn)) == NAMED
    assert set(removed) >= filled
    assert set(stock_client().scan_iter("lane:*")) == keys
    assert invariants_check().holds


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.nightly)])
def test_whoever_is_killed_between_two_batches_goes_on_there(
    every: int, superuser_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("referrals.removing.removal.BATCH_ROWS", 5)
    before = dump(superuser_dsn)
    a_drill()
    batches = 0

    def killed(table: str, count: int) -> None:
        nonlocal batches
        batches += 1
        if batches % every == 0:
            raise KeyboardInterrupt

    while ClientApp.objects.filter(slug=SLUG).exists():
        try:
            remove(scope_of(SLUG), killed)
        except KeyboardInterrupt:
            connection.close()
    assert batches > 30
    assert differing(before, dump(superuser_dsn)) - NAMED <= {"auth_user", "auth_user_groups"}


def test_the_command_counts_first_and_removes_when_told(capsys: Any, superuser_dsn: str) -> None:
    a_drill()
    before = dump(superuser_dsn)
    with as_owner():
        call_command("drill_remove", campaign=SLUG)
    assert "would be removed; --yes does it" in capsys.readouterr().out
    assert dump(superuser_dsn) == before
    with as_owner():
        call_command("drill_remove", campaign=SLUG, yes=True)
        with pytest.raises(CommandError, match="there is no drill"):
            call_command("drill_remove", campaign=SLUG)


def test_a_real_campaign_and_the_applications_role_are_refused() -> None:
    real = stage.live()
    with pytest.raises(RemovalRefused, match="real people"):
        scope_of(real.slug)
    drill_make(run="night", portions=[5])
    with pytest.raises(RemovalRefused, match="only the owner"):
        drill_remove(scope_of(SLUG), progress=lambda table, count: None)


def test_what_shares_money_with_somebody_real_stays() -> None:
    scope = a_drill()
    wallet = Account.objects.get(kind="wallet", owner=participant_digest(scope.app, "ben").hex())
    rail = Account.objects.create(kind="clearing", owner="somewhere")
    Transfer.objects.create(
        reference="payout:x", kind="payout", debit_account=wallet, credit_account=rail,
        amount_fen=1,
    )  # fmt: skip
    with pytest.raises(RemovalRefused, match="money went from or to"):
        remove(scope)
    assert Campaign.objects.get(slug=SLUG).state == "live"


KEPT = ("packets_transfer", "packets_account", "packets_claim", "packets_claimstate",
        "packets_laneepoch", "packets_payout", "referrals_referral", "referrals_serverevent",
        "campaign_disclosure")  # fmt: skip


def deleted(dsn: str, app: int) -> set[str]:
    """The tables from which a session that removes this app's drill can delete a real row."""
    gone = set()
    with psycopg.connect(dsn) as link:
        for table in KEPT:
            try:
                with link.transaction(force_rollback=True):
                    link.execute("SELECT set_config('laisee.removing', %s, true)", [str(app)])
                    name = pgsql.Identifier(table)
                    done = link.execute(pgsql.SQL("DELETE FROM {}").format(name))
                    assert done.rowcount > 0
                    gone.add(table)
            except psycopg.errors.IntegrityError:
                pass
            except psycopg.errors.InsufficientPrivilege:
                pass
    return gone


def test_no_real_row_goes_whatever_the_session_says(owner_dsn: str, app_dsn: str) -> None:
    real = a_real_campaign().client_apps.get()
    drill = ClientApp.objects.create(slug="drill-empty", name="Drill", is_drill=True)
    assert deleted(owner_dsn, drill.pk) == deleted(owner_dsn, real.pk) == set()
    scope = a_drill()
    assert deleted(app_dsn, scope.app) == set()


@pytest.mark.control
@pytest.mark.parametrize("guard", ["removes_drills", "removes_its_own"])
def test_without_its_guard_real_rows_go(guard: str, owner_dsn: str) -> None:
    real = a_real_campaign().client_apps.get()
    drill = ClientApp.objects.create(slug="drill-empty", name="Drill", is_drill=True)
    text = sql.load("referrals", "removing.sql")
    app = real if guard == "removes_drills" else drill
    with world.installed(owner_dsn, without_guard(text, guard), text):
        assert deleted(owner_dsn, app.pk) >= {"packets_payout", "referrals_serverevent"}


def test_every_table_is_either_removed_from_or_stays() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        )
        tables = {row[0] for row in cursor.fetchall()}
    planned = {one.table for one in plan.rows()}
    assert not planned & set(plan.STAYS)
    assert planned | set(plan.STAYS) == tables
