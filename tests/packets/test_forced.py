"""Test users hear what their app asked for, and neither stock nor money hears of them."""

from __future__ import annotations

import pytest

from engine import forced
from engine.lib.errors import ServiceError
from engine.lib.redis import stock as stock_client
from engine.models import AuditEvent, ClientApp, ForcedOutcome
from packets import stock
from packets.claiming import flow
from packets.claiming.effects import ClaimRequest, Reason, Result
from packets.claiming.registry import read
from packets.models import Claim, Lane, Participant
from tests import world
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)


def an_app(*, allowed: bool = True) -> ClientApp:
    app = stage.make_app()
    forced.app_test_users_set(client_app_id=app.pk, allowed=allowed, actor="test")
    return app


def force(app: ClientApp, subject: str, result: str, reason: str = "") -> ForcedOutcome:
    return forced.forced_outcome_set(
        client_app_id=app.pk, subject=subject, result=result, reason=reason, actor="staff:ann"
    )


def test_the_choices_of_staff_are_the_results_of_the_contract() -> None:
    assert set(ForcedOutcome.Result.values) == {str(result) for result in Result}
    assert set(ForcedOutcome.Reason.values) == {str(reason) for reason in Reason}


@pytest.mark.parametrize("result", list(Result))
def test_every_result_can_be_seen_and_nothing_is_touched(result: Result) -> None:
    app = an_app()
    packet = world.open_packet(10_000, 10, client_apps=[app.pk])
    reason = "not_new" if result is Result.NOT_ELIGIBLE else ""
    force(app, "tester", result, reason)
    meta = stock.meta_key(packet.pk, 0)
    before = stock_client().hgetall(meta)

    answers = [world.claim(packet, world.person("tester", app=app.pk)) for _ in range(2)]

    for answer in answers:
        assert (answer.result, answer.test) == (result, True)
        assert (answer.reason == Reason.NOT_NEW) == (result is Result.NOT_ELIGIBLE)
        assert (answer.claim is not None) == (result is Result.WON)
        assert (answer.retry_after_s == 1) == (result is Result.BUSY)
    if result is Result.WON:
        assert answers[0].claim == answers[1].claim
        assert answers[0].claim is not None and answers[0].claim.portion.amount_fen == 1_000
    assert Claim.objects.count() == Participant.objects.count() == 0
    assert Lane.objects.get(packet=packet).claimed_count == 0
    assert stock_client().hgetall(meta) == before
    alice = world.claim(packet, world.person("alice", app=app.pk))
    assert (alice.result, alice.test) == (Result.WON, False)
    assert alice.claim is not None and alice.claim.portion.index == 0  # the first draw is hers


def test_a_forced_answer_asks_the_world_for_nothing() -> None:
    """The rule yields no effect at all, so no driver, of either door, could move anything."""
    app = an_app()
    packet = world.open_packet(10_000, 10, client_apps=[app.pk])
    force(app, "tester", "won")
    view = read(packet.pk)
    assert view is not None

    steps = flow.claim(view, world.person("tester", app=app.pk), ClaimRequest(), b"key")

    with pytest.raises(StopIteration) as done:
        next(steps)
    assert done.value.value.test


def test_the_same_name_in_another_app_is_nobody_special() -> None:
    app, other = an_app(), an_app()
    packet = world.open_packet(10_000, 10, client_apps=[app.pk, other.pk])
    force(app, "tester", "blocked")

    assert world.claim(packet, world.person("tester", app=app.pk)).result is Result.BLOCKED
    assert world.claim(packet, world.person("tester", app=other.pk)).result is Result.WON


def test_an_app_that_takes_its_leave_back_has_no_test_users() -> None:
    app = an_app()
    packet = world.open_packet(10_000, 10, client_apps=[app.pk])
    force(app, "tester", "sold_out")
    forced.app_test_users_set(client_app_id=app.pk, allowed=False, actor="staff:ann")
    world.forget_views()

    assert world.claim(packet, world.person("tester", app=app.pk)).result is Result.WON


def test_what_makes_no_sense_is_refused_and_changes_nothing() -> None:
    app, closed = an_app(), an_app(allowed=False)
    force(app, "tester", "won")
    before = list(ForcedOutcome.objects.values()), AuditEvent.objects.count()

    for words, code in [
        ((app, "", "won"), "format"),
        ((app, "bob", "party"), "choice"),
        ((app, "bob", "not_eligible"), "blank"),
        ((app, "bob", "won", "not_new"), "not_used"),
        ((closed, "bob", "won"), "not_allowed"),
    ]:
        with pytest.raises(ServiceError) as refusal:
            force(*words)
        assert refusal.value.code == code
    assert (list(ForcedOutcome.objects.values()), AuditEvent.objects.count()) == before


def test_a_test_user_is_changed_and_taken_back_with_two_audit_events() -> None:
    app = an_app()
    row = force(app, "tester", "won")
    assert force(app, "tester", "ended").pk == row.pk
    forced.forced_outcome_delete(forced_outcome_id=row.pk, actor="staff:ann")

    assert not ForcedOutcome.objects.exists()
    actions = AuditEvent.objects.filter(object_type="forced_outcome").values_list("action", "actor")
    assert list(actions.order_by("id")) == [
        ("forced_outcome.set", "staff:ann"),
        ("forced_outcome.set", "staff:ann"),
        ("forced_outcome.delete", "staff:ann"),
    ]
