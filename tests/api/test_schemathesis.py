"""The whole OpenAPI document, attacked: every answer must be one that the document promises.

Cases are derived from the document (good and bad bodies, parameters, headers, methods), the same
ones in every run. Two rounds: with the ids that the generator makes up, and with those of a packet
and a campaign that exist, so that the cases get past the 404.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok

from campaign.models import CampaignGrowth
from engine.models import ClientApp
from engine.wsgi import application
from packets.wallets import wallet_of
from tests import wallets
from tests.campaign import stage
from tests.factories import make_funding
from tests.packets.holding import freeze
from tests.packets.payouts.stage import payout_of, provider_account

pytestmark = pytest.mark.django_db(transaction=True)

# Per operation and round; the coverage phase adds its own cases for every boundary.
EXAMPLES = 20
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


schemathesis.openapi.format(
    "printable", st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=128)
)
# Read over WSGI, from the address where clients read it.
schema = schemathesis.openapi.from_wsgi("/api/schema", application)


@pytest.fixture
def places(app: ClientApp) -> dict[str, str]:
    """What exists: a campaign with a packet, and credentials for both kinds of callers."""
    campaign = stage.live(app)
    CampaignGrowth.objects.create(campaign=campaign, new_only=False)
    wallets.fill(app, ["alice"], 1_000_000)
    payout = payout_of(provider_account(), wallet=wallet_of(wallets.digest(app, "alice")))
    return {
        "packet_id": stage.first_packet(campaign).public_id,
        "hold_id": held(app),
        "withdrawal_id": payout.id.hex,
        "slug": campaign.slug,
        "provider": provider_account(base_url="http://127.0.0.1:9").name,
        "ClientToken": f"Bearer {stage.token(app, 'alice')}",
        "ApiKey": f"Api-Key {stage.api_key(app, 'tokens', 'events', 'tickets', 'ops')}",
    }


def held(app: ClientApp) -> str:
    """Some of Alice's money waits for a decision."""
    hold = freeze(wallets.digest(app, "alice"), 100, make_funding().account.pk)
    assert hold is not None
    return hold.pk.hex


def credentials(case: Case, places: dict[str, str]) -> dict[str, str]:
    """Good ones, unless the case is about bad or missing ones."""
    if case.operation.schema.is_security_param_negated(case):
        return {}
    (requirement,) = case.operation.definition.raw["security"]
    schemes = list(requirement)
    return {"Authorization": places[schemes[0]]} if schemes else {}


# Whether the caller has the money, and whether their key is new, isn't in the document.
MOVES_MONEY = (
    "POST /api/v1/packets",
    "POST /api/v1/me/withdrawals",
    "POST /api/v1/me/withdrawals/{withdrawal_id}/cancel",
)
# Exactly one of two fields, which a JSON Schema of plain fields doesn't say.
ONE_OF_TWO = ("POST /api/v1/campaigns/{slug}/referral",)
# Only a provider can sign, and there is nobody else whom its callbacks would do for.
SIGNED = ("POST /api/v1/payouts/{provider}/callback",)


def checks_for(case: Case) -> list[Any]:
    """All checks, but for what the document can't say and what is refused on purpose: money that
    isn't there, a cursor that we didn't sign, and a whole number written as a float (578.0)."""
    on_purpose = (
        case.operation.label in (*MOVES_MONEY, *ONE_OF_TWO, *SIGNED)
        or "cursor" in (case.query or {})
        or _holds_float(case.body)
    )
    return [
        check
        for check in CHECKS.get_all()
        if not (on_purpose and check.__name__ == "positive_data_acceptance")
    ]


def _holds_float(body: Any) -> bool:
    return isinstance(body, dict) and any(isinstance(value, float) for value in body.values())


def made_up_ids(case: Case, places: dict[str, str]) -> None:
    case.call_and_validate(headers=credentials(case, places), checks=checks_for(case))


def ids_that_exist(case: Case, places: dict[str, str]) -> None:
    for name in case.path_parameters:
        case.path_parameters[name] = places[name]
    case.call_and_validate(headers=credentials(case, places), checks=checks_for(case))


def attacked(label: str, attack: Callable[[Case, dict[str, str]], None]) -> Callable[..., None]:
    @schema.include(name=label).parametrize()
    @BOUNDED
    def test(case: Case, places: dict[str, str]) -> None:
        attack(case, places)

    return test


def labels() -> list[str]:
    return [result.ok().label for result in schema.get_all_operations() if isinstance(result, Ok)]


# A test of its own for each operation: of several with one name, processes that share the tests by
# name would run one.
for _label in labels():
    for _attack in (made_up_ids, ids_that_exist):
        _name = "_".join(["test", _attack.__name__, *re.findall(r"[a-z0-9]+", _label.lower())])
        globals()[_name] = attacked(_label, _attack)


def test_the_attack_covers_every_operation() -> None:
    assert set(labels()) == {
        "GET /api/v1/campaigns",
        "GET /api/v1/campaigns/{slug}",
        "POST /api/v1/packets",
        "GET /api/v1/packets/{packet_id}",
        "POST /api/v1/packets/{packet_id}/claims",
        "GET /api/v1/packets/{packet_id}/proof",
        "GET /api/v1/me/claims",
        "GET /api/v1/me/wallet",
        "GET /api/v1/me/wallet/transfers",
        "GET /api/v1/me/holds",
        "POST /api/v1/me/holds/{hold_id}/appeal",
        "POST /api/v1/me/withdrawals",
        "GET /api/v1/me/withdrawals",
        "GET /api/v1/me/withdrawals/{withdrawal_id}",
        "POST /api/v1/me/withdrawals/{withdrawal_id}/cancel",
        "POST /api/v1/payouts/{provider}/callback",
        "GET /api/v1/ops/invariants",
        "GET /api/v1/me/referrals",
        "GET /api/v1/me/share-links",
        "POST /api/v1/campaigns/{slug}/referral",
        "POST /api/v1/campaigns/{slug}/share-links",
        "POST /api/v1/server/tokens",
        "GET /api/v1/me/tickets",
        "POST /api/v1/server/events",
        "POST /api/v1/server/campaigns/{slug}/tickets",
    }
