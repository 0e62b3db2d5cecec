"""A drill beside real campaigns: what it can't touch, and who doesn't see it."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.test import Client

from campaign import board, services
from campaign.drills import Drill, drill_make
from campaign.models import Campaign
from campaign.money_exports import Period, What, money_export
from engine.lib.clock import now
from engine.lib.errors import ServiceError
from engine.lib.ids import participant_digest
from engine.models import ClientApp
from packets import ledger
from packets.models import Account, Packet, ProviderAccount, Transfer
from packets.payouts.withdrawals import payout_create
from tests.campaign import stage
from tests.packets.payouts.stage import provider_account

pytestmark = pytest.mark.django_db


@pytest.fixture
def drill(settings: Any) -> Drill:
    settings.SANDBOX_URL, settings.SANDBOX_SECRET = "http://127.0.0.1:9", "s" * 16
    return drill_make(run="night", portions=[10, 20])


def app_of(drill: Drill) -> ClientApp:
    return Campaign.objects.get(slug=drill.campaign).client_apps.get()


def funded_wallet(app: ClientApp, name: str, packet: Packet, amount_fen: int) -> Account:
    """The wallet of a person who has won."""
    owner = participant_digest(app.pk, name).hex()
    wallet = ledger.account_get_or_create(kind=Account.Kind.WALLET, owner=owner)
    assert packet.escrow_id is not None
    entry = ledger.Entry(
        f"settle:{uuid.uuid4().hex}", Transfer.Kind.SETTLE, packet.escrow_id, wallet.pk, amount_fen
    )
    ledger.post([entry])
    return wallet


def test_a_drill_has_everything_to_itself(drill: Drill) -> None:
    before = ledger.external_account().balance_fen
    second = drill_make(run="second", portions=[5])
    apps = {app_of(drill), app_of(second)}
    assert len(apps) == 2 and all(app.is_drill for app in apps)
    outside = ledger.external_account(drill=app_of(second).pk)
    assert (outside.balance_fen, ledger.external_account().balance_fen) == (-500, before)
    assert User.objects.filter(username__startswith="drill-second-").count() == 2
    with pytest.raises(ServiceError) as refusal:
        drill_make(run="second", portions=[5])
    assert (refusal.value.field, refusal.value.code) == ("run", "taken")


def test_whose_app_it_is_is_said_once(drill: Drill) -> None:
    real = stage.make_app()
    for app, mark in ((app_of(drill), False), (real, True)):
        with pytest.raises(IntegrityError, match="said when it is made"), transaction.atomic():
            ClientApp.objects.filter(pk=app.pk).update(is_drill=mark)


def test_no_campaign_of_real_people_carries_a_drills_app(drill: Drill) -> None:
    app = app_of(drill)
    for apps in ([app.pk], [app.pk, stage.make_app().pk]):
        with pytest.raises(ServiceError) as refusal:
            services.campaign_update(
                campaign_id=stage.draft().pk, actor=stage.ACTOR, client_apps=apps
            )
        assert refusal.value.code == "of_a_drill"


def test_what_a_drill_pays_out_is_played_money(drill: Drill) -> None:
    app, packet = app_of(drill), Packet.objects.get(pk=drill.packets[0])
    wallet = funded_wallet(app, "ann", packet, 500)
    whose: dict[str, Any] = {
        "participant": bytes.fromhex(wallet.owner),
        "client_app_id": app.pk,
        "amount_fen": 300,
        "payee_account": "ann@sandbox",
    }
    everybodys = provider_account("everybody", client_apps=[])
    shared = provider_account("shared", client_apps=[app.pk, stage.make_app().pk])
    bank = provider_account("bank", kind=ProviderAccount.Kind.ALIPAY, client_apps=[app.pk])
    for account in (everybodys, shared, bank):
        with pytest.raises(ServiceError) as refusal:
            payout_create(provider=account.name, key="k", **whose)
        assert (refusal.value.field, refusal.value.code) == ("provider", "unknown_choice")
    assert drill.provider is not None
    payout = payout_create(provider=drill.provider, key="k", **whose)
    assert payout.account.client_apps == [app.pk]

    # Nor is anybody real paid by it, should it come to serve them.
    real = stage.make_app()
    ProviderAccount.objects.filter(pk=payout.account_id).update(client_apps=[app.pk, real.pk])
    whose |= {"participant": participant_digest(real.pk, "bea"), "client_app_id": real.pk}
    with pytest.raises(ServiceError) as refusal:
        payout_create(provider=drill.provider, key="k", **whose)
    assert refusal.value.code == "unknown_choice"


def test_reports_and_the_board_leave_drills_out(drill: Drill) -> None:
    campaign = stage.live()
    real = Packet.objects.get(campaign_link__campaign=campaign)
    funded_wallet(campaign.client_apps.get(), "bea", real, 100)
    funded_wallet(app_of(drill), "ann", Packet.objects.get(pk=drill.packets[0]), 500)
    today = now().date()
    period = Period(today - dt.timedelta(days=1), today + dt.timedelta(days=1))
    text = b"".join(
        money_export(what=What.TRANSFERS, period=period, whole=False, actor="test")
    ).decode()
    assert campaign.slug in text and "drill" not in text
    assert len(text.splitlines()) == 1 + 3  # funded, opened, settled
    assert [standing.slug for standing in board.standings()] == [campaign.slug]
    assert board.standings(Campaign.objects.get(slug=drill.campaign).pk)
    assert sum(board.speed().won) == 0


def test_the_list_shows_drills_to_whoever_asks(drill: Drill, client: Client) -> None:
    real = stage.draft()
    client.force_login(stage.member("operations", "olga"))
    shown = {
        query: client.get(f"/admin/campaign/campaign/{query}").content.decode()
        for query in ("", "?drills=too", "?drills=only")
    }
    assert [real.slug in text for text in shown.values()] == [True, True, False]
    assert [drill.campaign in text for text in shown.values()] == [False, True, True]
