"""A packet is claimed through the synchronous driver, against real Postgres and Valkey."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.db.models import Count, Sum

from engine.lib import clock
from engine.lib.redis import stock as stock_client
from packets import services, stock
from packets.claiming import sync
from packets.claiming.effects import ClaimRequest, Reason, Result
from packets.models import Account, Claim, Lane, Packet, Participant
from tests import world

pytestmark = pytest.mark.django_db(transaction=True)


def end(packet: Packet, ago: dt.timedelta) -> None:
    """As if the packet's window had ended so long ago."""
    Packet.objects.filter(id=packet.id).update(
        opens_at=clock.now() - ago - dt.timedelta(hours=1), closes_at=clock.now() - ago
    )
    stock.push_flags(stock_client(), packet.id)
    world.forget_views()


def test_it_works() -> None:
    packet = world.open_packet(10_000, 3)

    first = world.claim(packet, "alice")
    again = world.claim(packet, "alice")

    assert first.result is Result.WON and not first.replayed and first.left_count == 2
    assert again.result is Result.WON and again.replayed and again.claim == first.claim
    assert first.claim is not None
    row = Claim.objects.get()
    assert (row.id, row.amount_fen) == (first.claim.id, first.claim.portion.amount_fen)
    assert (row.epoch, row.index, row.position) == (1, 0, 1)
    person = Participant.objects.get()
    assert (bytes(person.digest), person.subject) == (world.person("alice").participant, "alice")


def test_large_amounts_keep_all_their_digits() -> None:
    """Lua's `..` would write fourteen of them."""
    total_fen = 2_353_249_011_505_577
    packet = world.open_packet(total_fen, 2, strategy="fixed")

    first = world.claim(packet, "alice")

    half_fen = total_fen // 2
    assert first.claim is not None and first.claim.portion.amount_fen == half_fen
    assert int(world.redis_meta(packet)[b"left_fen"]) == total_fen - half_fen
    again = world.claim(packet, "alice")
    assert again.replayed and again.claim == first.claim


def test_all_portions_go_and_sum_to_the_total() -> None:
    packet = world.open_packet(10_000, 20)

    outcomes = [world.claim(packet, f"user{i}") for i in range(25)]

    won = [outcome for outcome in outcomes if outcome.result is Result.WON]
    assert len(won) == 20
    assert sum(outcome.claim.portion.amount_fen for outcome in won if outcome.claim) == 10_000
    assert {outcome.result for outcome in outcomes[20:]} == {Result.SOLD_OUT}


@pytest.mark.parametrize(
    "rules",
    [
        {"strategy": "fixed"},
        {"strategy": "double_mean"},
        {"strategy": "lucky", "min_fen": 50, "max_fen": 900},
        {"strategy": "lucky", "min_fen": 10, "max_fen": 520},
        {"strategy": "tiers", "tiers": [(5_000, 1), (100, 5)], "remainder": "lucky"},
        {"strategy": "lucky", "lane_count": 4},
        {"strategy": "tiers", "tiers": [(5_000, 1), (100, 5)], "lane_count": 3},
    ],
)
def test_every_strategy_ends_at_the_total(rules: dict[str, object]) -> None:
    packet = world.open_packet(20_000, 40, **rules)

    for i in range(400):
        world.claim(packet, f"user{i}")

    totals = Claim.objects.aggregate(fen=Sum("amount_fen"), count=Count("id"))
    assert totals == {"fen": 20_000, "count": 40}
    for lane in Lane.objects.filter(packet=packet):
        assert (lane.claimed_fen, lane.claimed_count) == (lane.total_fen, lane.count)


def test_five_hundred_at_once_and_each_twice() -> None:
    """Nobody wins twice, nothing is oversold, repeats get the same claim."""
    packet = world.open_packet(50_000, 100)

    answers = world.together(
        [lambda i=i: world.claim(packet, f"user{i % 250}") for i in range(500)], threads=24
    )

    assert not [a for a in answers if isinstance(a, BaseException)]
    by_person: dict[int, set[object]] = {}
    for i, answer in enumerate(answers):
        if answer.result is Result.WON:
            by_person.setdefault(i % 250, set()).add(answer.claim)
    assert len(by_person) == 100
    assert all(len(claims) == 1 for claims in by_person.values())
    assert Claim.objects.aggregate(fen=Sum("amount_fen"))["fen"] == 50_000


def test_two_hundred_taps_of_one_person() -> None:
    packet = world.open_packet(50_000, 100)

    answers = world.together([lambda: world.claim(packet, "alice")] * 200, threads=24)

    assert {a.claim for a in answers} == {answers[0].claim} and answers[0].claim is not None
    assert Claim.objects.count() == 1
    assert Lane.objects.get().claimed_count == 1


class TestRefusals:
    def test_an_unknown_packet(self) -> None:
        answer = sync.claim(uuid.uuid4(), world.person("alice"), ClaimRequest())
        assert answer is None

    def test_a_draft_is_unknown(self) -> None:
        packet = world.draft_packet()
        assert sync.claim(packet.id, world.person("alice"), ClaimRequest()) is None

    def test_not_started(self) -> None:
        packet = world.open_packet(opens_at=clock.now() + dt.timedelta(minutes=5))
        assert world.claim(packet, "alice").result is Result.NOT_STARTED
        assert not Claim.objects.exists()

    def test_ended_by_the_clock_before_anybody_closes_it(self) -> None:
        packet = world.open_packet()
        end(packet, dt.timedelta(hours=1))
        assert world.claim(packet, "alice").result is Result.ENDED
        assert not Claim.objects.exists()
        # Whoever comes first after the end closes it: no worker has to be there.
        assert Packet.objects.get().state == "closed"
        assert Account.objects.get(id=packet.funder_id).balance_fen == 10_000

    def test_another_client_app(self) -> None:
        """The same user id of another app is another person, and not served here."""
        packet = world.open_packet()
        world.claim(packet, "alice")
        stranger = world.claim(packet, world.person("alice", app=2))
        assert (stranger.result, stranger.reason) == (Result.NOT_ELIGIBLE, Reason.NOT_TARGETED)
        assert Claim.objects.count() == 1

    def test_two_apps_have_two_people_of_one_name(self) -> None:
        packet = world.open_packet(client_apps=[1, 2])
        ours = world.claim(packet, "1001")
        theirs = world.claim(packet, world.person("1001", app=2))
        assert ours.claim is not None and theirs.claim is not None
        assert ours.claim.id != theirs.claim.id and not theirs.replayed

    def test_targeted(self) -> None:
        packet = world.draft_packet(targeted=True)
        listed = [world.person("alice").participant, world.person("bob").participant]
        assert services.packet_targets_add(packet_id=packet.id, participants=listed) == 2
        assert services.packet_targets_add(packet_id=packet.id, participants=listed[:1]) == 0
        services.packet_open(packet_id=packet.id, actor="test")
        assert world.claim(packet, "alice").result is Result.WON
        outsider = world.claim(packet, "carol")
        assert (outsider.result, outsider.reason) == (Result.NOT_ELIGIBLE, Reason.NOT_TARGETED)

    @pytest.mark.parametrize(
        ("rules", "claims", "reason"),
        [
            ({"group": "family"}, {}, Reason.NOT_IN_GROUP),
            ({"group": "family"}, {"group": "work"}, Reason.NOT_IN_GROUP),
            ({"group": "family"}, {"group": "family"}, None),
            ({"new_only": True}, {}, Reason.NOT_NEW),
            ({"new_only": True}, {"is_new": False}, Reason.NOT_NEW),
            ({"new_only": True}, {"is_new": True}, None),
            ({"min_account_age_days": 7}, {}, Reason.TOO_YOUNG_ACCOUNT),
            ({"min_account_age_days": 7}, {"account_age_days": 6}, Reason.TOO_YOUNG_ACCOUNT),
            ({"min_account_age_days": 7}, {"account_age_days": 7}, None),
        ],
    )
    def test_audience(self, rules: dict, claims: dict, reason: Reason | None) -> None:
        packet = world.open_packet(**rules)
        outcome = world.claim(packet, world.person("alice", **claims))
        assert outcome.reason is reason
        assert Claim.objects.count() == (1 if reason is None else 0)

    def test_a_winner_whose_token_has_changed_still_hears_won(self) -> None:
        packet = world.open_packet(new_only=True)
        first = world.claim(packet, world.person("alice", is_new=True))
        later = world.claim(packet, world.person("alice", is_new=False))
        assert later.result is Result.WON and later.claim == first.claim


class TestPassword:
    def test_right_wrong_and_missing(self) -> None:
        packet = world.open_packet(password="恭喜发财")
        assert world.claim(packet, "alice").result is Result.WRONG_PASSWORD
        assert world.claim(packet, "alice", password="发财").result is Result.WRONG_PASSWORD
        assert world.claim(packet, "alice", password=" 恭喜发财 ").result is Result.WON
        assert Packet.objects.get().password_hash not in ("", "恭喜发财")

    def test_five_tries_then_blocked_even_with_the_right_one(self) -> None:
        packet = world.open_packet(password="dragon")
        for _ in range(5):
            assert world.claim(packet, "alice", password="rat").result is Result.WRONG_PASSWORD
        assert world.claim(packet, "alice", password="rat").result is Result.BLOCKED
        assert world.claim(packet, "alice", password="dragon").result is Result.BLOCKED
        assert world.claim(packet, "bob", password="dragon").result is Result.WON

    def test_fifty_guesses_at_once_get_five_answers(self) -> None:
        packet = world.open_packet(password="dragon")
        answers = world.together(
            [lambda: world.claim(packet, "alice", password="rat")] * 50, threads=16
        )
        results = [answer.result for answer in answers]
        assert results.count(Result.WRONG_PASSWORD) == 5
        assert results.count(Result.BLOCKED) == 45


class TestLife:
    def test_pause_and_resume(self) -> None:
        packet = world.open_packet()
        won = world.claim(packet, "alice")
        services.packet_pause(packet_id=packet.id, actor="test")
        assert world.claim(packet, "bob").result is Result.PAUSED
        assert world.claim(packet, "alice").claim == won.claim
        services.packet_resume(packet_id=packet.id, actor="test")
        assert world.claim(packet, "bob").result is Result.WON

    def test_the_gate_of_all(self) -> None:
        packet = world.open_packet()
        from packets.models import Gate

        everything = Gate.objects.get(key=Gate.ALL)
        services.gate_set(gate_id=everything.id, state="paused", actor="test")
        assert world.claim(packet, "bob").result is Result.PAUSED
        services.gate_set(gate_id=everything.id, state="open", actor="test")
        assert world.claim(packet, "bob").result is Result.WON

    def test_close_returns_what_nobody_claimed_once(self) -> None:
        packet = world.open_packet(10_000, 10)
        outcomes = [world.claim(packet, f"user{i}") for i in range(4)]
        claimed = sum(o.claim.portion.amount_fen for o in outcomes if o.claim)

        services.packet_close(packet_id=packet.id, actor="test")
        with pytest.raises(services.TransitionRefused):
            services.packet_close(packet_id=packet.id, actor="test")

        assert Account.objects.get(id=packet.funder_id).balance_fen == 10_000 - claimed
        world.forget_views()
        assert world.claim(packet, "zoe").result is Result.ENDED
        assert world.claim(packet, "user2").claim == outcomes[2].claim

    def test_expiry_racing_the_last_claims(self) -> None:
        packet = world.open_packet(10_000, 50)

        def close() -> None:
            services.packet_close(packet_id=packet.id, actor="test")

        jobs = [lambda i=i: world.claim(packet, f"user{i}") for i in range(60)]
        jobs.insert(30, close)
        answers = world.together(jobs, threads=12)

        wins = [a for a in answers if a is not None and a.result is Result.WON]
        total = sum(a.claim.portion.amount_fen for a in wins)
        assert Claim.objects.count() == len(wins)
        assert Account.objects.get(id=packet.funder_id).balance_fen == 10_000 - total

    def test_due_packets_are_closed_by_the_sweep(self) -> None:
        packet = world.open_packet(closes_at=clock.now() + dt.timedelta(hours=1))
        assert services.packets_expire_due() == 0
        Packet.objects.filter(id=packet.id).update(closes_at=clock.now() - dt.timedelta(seconds=3))
        assert services.packets_expire_due() == 1
        assert services.packets_expire_due() == 0
        assert Packet.objects.get().state == "closed"
