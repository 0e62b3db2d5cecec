"""The whole way, over HTTP: payouts through the sandbox, whose statement is then tampered with."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.lib.crypto import encrypt
from engine.lib.redis import stock as stock_client
from packets.models import Difference, Payout, ProviderAccount, Statement
from packets.providers import provider_of
from packets.providers.sandbox.faults import StatementFault
from packets.reconciling import matching, statements
from packets.reconciling.three_way import three_way_check
from tests.packets.payouts.stage import payout_of, provider_account, step
from tests.packets.providers.sandbox_server import SandboxServer
from tests.packets.reconciling.stage import DAY, TODAY, noon
from tests.packets.reconciling.test_books import broken

pytestmark = pytest.mark.django_db(transaction=True)

# Midnight may pass while a story is told: the days beside today are asked for too.
DAYS = [DAY, *(TODAY + dt.timedelta(days=number) for number in (-1, 0, 1))]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    with SandboxServer(tmp_path_factory.mktemp("sandbox")) as server:
        yield server


@pytest.fixture
def rail(sandbox: SandboxServer) -> ProviderAccount:
    sandbox.provider().control({"rates": {}, "settle_s": 0})
    return provider_account(
        "rail",
        base_url=sandbox.url,
        credentials_encrypted=encrypt(json.dumps(sandbox.credentials).encode()),
    )


def paid(rail: ProviderAccount) -> Payout:
    payout = payout_of(rail, amount_fen=500)
    while payout.state != "paid":
        payout = step(payout)
    # By our own book it was days ago: what is missing is only missed once its days are over.
    Payout.objects.filter(pk=payout.pk).update(first_submitted_at=noon(), ended_at=noon())
    return payout


def reconcile(rail: ProviderAccount) -> None:
    for day in DAYS:
        made = statements.statement_fetch(account=rail, day=day, provider_of=provider_of)
        assert made.state == "received", made.fault
        matching.statement_match(statement_id=made.pk)


FOUND = {
    StatementFault.LOST: "missing_there",
    StatementFault.INVENTED: "missing_here",
    StatementFault.AMOUNT: "amount",
    StatementFault.STATE: "state",
    StatementFault.DUPLICATE: "duplicate",
}


@pytest.mark.parametrize("fault", list(StatementFault))
def test_what_the_provider_s_statement_gets_wrong_is_named(
    sandbox: SandboxServer, rail: ProviderAccount, fault: StatementFault
) -> None:
    ours = paid(rail)
    number = ours.numbers.get().number
    # Earlier stories left orders of their own in the sandbox's books: another system's, to us.
    reconcile(rail)
    Difference.objects.filter(kind="missing_here").update(
        state="resolved", resolution="not_ours", resolved_at=dt.datetime.now(dt.UTC)
    )

    sandbox.provider().control({"rates": {str(fault): 1.0}})
    reconcile(rail)
    mine = Difference.objects.filter(state="open")
    if fault is StatementFault.INVENTED:
        mine = mine.filter(out_number__startswith="INVENTED", theirs_fen=500)
        assert mine.exists()
    else:
        mine = mine.filter(payout=ours)
        assert [(one.kind, one.out_number) for one in mine] == [(FOUND[fault], number)]
    assert {one.kind for one in mine} == {FOUND[fault]}
    assert broken() == {}

    # The provider's next version of the days is right: what it had wrong closes itself.
    sandbox.provider().control({"rates": {}})
    reconcile(rail)
    assert not mine.filter(state="open").exists()
    assert Statement.objects.filter(state="matched").count() == len(DAYS)
    check = three_way_check(client=stock_client(), provider_of=provider_of)
    assert check.report["found"] == []
    assert check.report["accounts"]["rail"]["statements_fen"] == 500
    assert check.report["accounts"]["rail"]["balance_fen"] > 0


def test_a_sandbox_that_is_away_costs_the_day_an_attempt(tmp_path: Path) -> None:
    server = SandboxServer(tmp_path)
    away = provider_account(
        "away",
        base_url=server.url,
        credentials_encrypted=encrypt(json.dumps(server.credentials).encode()),
    )
    made = statements.statement_fetch(account=away, day=TODAY, provider_of=provider_of)
    assert (made.state, made.lines) == ("failed", 0) and made.fault
