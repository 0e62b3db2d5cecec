"""Banning a person: links, binding, packets, and the rewards of everybody around them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db.models.functions import Now

from campaign.models import CampaignChannel, CampaignGrowth, Channel, Vehicle
from engine.lib.errors import ServiceError
from engine.models import AuditEvent
from packets.claiming.effects import Outcome, Result
from packets.claiming.registry import registry
from packets.holds.resolving import hold_forfeit
from packets.models import Block, Claim, Hold, Packet, PeoplePacket
from packets.selectors import wallet_balance
from packets.services import packet_pause
from referrals.forest import bans, binding
from referrals.forest.bans import ban_lift, bans_carry_out, is_banned, person_ban
from referrals.forest.binding import BindResult, referral_bind, touch_of_code
from referrals.linking import links
from referrals.models import Ban, BanReward, Referral, Reward, ShareLink
from referrals.rewarding import freezing, granting
from referrals.rewarding.granting import NotYet, Share, reward_grant
from referrals.risk.wallets import wallet_hold
from tests import wallets, world
from tests.conftest import wait_until
from tests.referrals.rewarding import claims, earned, known, rewarding, settle
from tests.referrals.stage import app_of, bind, link_of, sharing

pytestmark = pytest.mark.django_db(transaction=True)


def who(growth: CampaignGrowth, name: str) -> bytes:
    return world.person(name, app_of(growth.campaign)).participant


def ban(growth: CampaignGrowth, name: str, everywhere: bool = False) -> Ban:
    return person_ban(
        participant=who(growth, name),
        campaign=None if everywhere else growth.campaign,
        actor="staff:eva",
        reason="one phone, many people",
    )


def rewarded(growth: CampaignGrowth, *names: str) -> None:
    """Each of them has earned a reward by the first friend whom they invited."""
    known(growth, *names)
    for name in names:
        referral = Referral.objects.filter(inviter=who(growth, name)).earliest("id")
        assert earned(growth, referral, Reward.Side.INVITER).state == "granted"


def held_fen(growth: CampaignGrowth, name: str) -> int:
    return wallet_balance(who(growth, name)).held_fen


def carry_out() -> None:
    for _ in range(5):
        bans_carry_out()
        Ban.objects.filter(is_done=False).update(due_at="2020-01-01T00:00Z")
    assert not Ban.objects.filter(is_done=False).exists()


def test_nobody_is_bound_to_or_by_a_banned_person() -> None:
    growth, elsewhere = sharing(), sharing()
    code = link_of(growth, "ann").code
    touch = touch_of_code(growth, code)
    assert not isinstance(touch, BindResult)

    ban(growth, "ann")

    app = app_of(growth.campaign)
    late = referral_bind(growth=growth, invitee=who(growth, "bob"), client_app_id=app, touch=touch)
    assert late is BindResult.BLOCKED  # the code was read before the ban
    assert touch_of_code(growth, code) is BindResult.UNKNOWN_CODE
    assert bind(growth, "ann", "cem") is BindResult.BLOCKED
    assert not Referral.objects.exists()
    assert is_banned(growth.campaign.pk, who(growth, "ann"))
    assert not is_banned(elsewhere.campaign.pk, who(growth, "ann"))
    link = ShareLink.objects.get(code=code)
    assert link.revoked_at is not None


def _bans_ann_while_bob_is_bound(monkeypatch: pytest.MonkeyPatch) -> int:
    """Whether bob is bound to her by an edge from after the ban. He looks for bans, finds none, and
    the ban has a second to come before his edge is written."""
    growth = sharing()
    looked, made = threading.Event(), threading.Event()

    def looks(*args: Any) -> bool:
        found = is_banned(*args)
        looked.set()
        made.wait(1.0)
        return found

    def bans_her() -> None:
        assert looked.wait(10)
        ban(growth, "ann")
        made.set()

    monkeypatch.setattr(binding, "is_banned", looks)
    for result in world.together([lambda: bind(growth, "bob", "ann"), bans_her], threads=2):
        assert not isinstance(result, BaseException), result
    return Referral.objects.filter(bound_at__gt=Ban.objects.get().banned_at).count()


def test_a_ban_waits_for_whoever_is_being_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _bans_ann_while_bob_is_bound(monkeypatch) == 0


@pytest.mark.control
def test_a_ban_that_does_not_wait_is_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "bans_wait", lambda: None)
    assert _bans_ann_while_bob_is_bound(monkeypatch) == 1


def test_a_ban_everywhere_is_one_in_each_campaign() -> None:
    growth = sharing()

    ban(growth, "ann", everywhere=True)

    assert bind(growth, "bob", "cem") is BindResult.BOUND
    assert bind(growth, "ann", "cem") is BindResult.BLOCKED


def test_a_banned_person_gets_no_link_even_without_having_had_one() -> None:
    growth = sharing()
    bob = world.person("bob", app_of(growth.campaign))
    CampaignChannel.objects.get_or_create(
        campaign=growth.campaign, channel=Channel.WECHAT, vehicle=Vehicle.LINK
    )
    ban(growth, "bob", everywhere=True)

    with pytest.raises(links.SharingBlocked):
        links.link_share(campaign=growth.campaign, caller=bob, channel=Channel.WECHAT)

    assert not ShareLink.objects.exists()


def test_a_reward_of_a_banned_person_waits() -> None:
    growth = sharing()
    bind(growth, "bob", "ann")
    world.claim(
        Packet.objects.get(campaigns=growth.campaign),
        world.person("ann", app_of(growth.campaign)),
    )
    ban(growth, "ann")
    share = Share(
        Referral.objects.get(),
        Reward.Side.INVITER,
        who(growth, "ann"),
        Packet.objects.get(campaigns=growth.campaign),
        None,
    )

    with pytest.raises(NotYet, match="banned"):
        reward_grant(share=share, qualified_by="test")

    assert not Reward.objects.exists()


def test_a_person_is_banned_once() -> None:
    growth = sharing()
    first = ban(growth, "ann")

    with pytest.raises(ServiceError, match="banned already"):
        ban(growth, "ann")
    with pytest.raises(ServiceError, match="Say why"):
        person_ban(participant=who(growth, "bob"), campaign=None, actor="staff:eva", reason=" ")

    assert Ban.objects.get() == first
    assert AuditEvent.objects.filter(action="person.ban").count() == 1


def test_the_trees_unpaid_rewards_are_held_and_come_back() -> None:
    growth = rewarding()
    for friend, inviter in (("bob", "ann"), ("cem", "bob"), ("dan", "cem"), ("joe", "eve")):
        bind(growth, friend, inviter)
    bind(growth, "ann", "top")
    rewarded(growth, "top", "ann", "bob", "cem", "eve")
    settle(growth)
    won = dict(Claim.objects.values_list("participant", "amount_fen"))
    won = {bytes(person): fen for person, fen in won.items()}

    made = ban(growth, "ann")
    carry_out()

    for name in ("ann", "bob", "cem"):
        assert held_fen(growth, name) == won[who(growth, name)]
    for name in ("top", "eve"):
        assert held_fen(growth, name) == 0
    assert Hold.objects.count() == 3
    wallets.assert_sound()

    [of_bob] = Hold.objects.filter(participant=who(growth, "bob"))
    ban_lift(ban_id=made.pk, actor="staff:zoe", reason="it was her shop")
    carry_out()

    of_bob.refresh_from_db()
    assert (of_bob.state, of_bob.resolved_by) == ("released", "staff:zoe")
    assert [held_fen(growth, name) for name in ("ann", "bob", "cem")] == [0, 0, 0]
    assert ShareLink.objects.filter(revoked_at=None).count() == ShareLink.objects.count()
    assert bind(growth, "new", "ann") is BindResult.BOUND
    with pytest.raises(ServiceError, match="lifted already"):
        ban_lift(ban_id=made.pk, actor="staff:zoe", reason="again")
    wallets.assert_sound()


def test_a_reward_that_is_not_settled_yet_is_held_once_it_is() -> None:
    growth = rewarding()
    bind(growth, "bob", "ann")
    rewarded(growth, "ann")
    made = ban(growth, "ann")

    assert bans_carry_out() == 0
    made.refresh_from_db()
    assert not made.is_done
    settle(growth)
    carry_out()

    assert held_fen(growth, "ann") == Claim.objects.get().amount_fen
    assert BanReward.objects.get().hold is not None


def test_a_sweep_that_comes_twice_holds_once() -> None:
    growth = rewarding()
    for friend, inviter in (("bob", "ann"), ("cem", "bob"), ("dan", "cem")):
        bind(growth, friend, inviter)
    rewarded(growth, "ann", "bob", "cem")
    settle(growth)
    ban(growth, "ann")

    done = world.together([bans_carry_out] * 4, threads=4)

    assert sum(int(one) for one in done if isinstance(one, int)) == 3
    assert [one for one in done if isinstance(one, BaseException)] == []
    assert Hold.objects.count() == BanReward.objects.count() == 3


def test_packets_of_a_banned_person_stop_until_the_ban_is_lifted() -> None:
    growth = sharing()
    packet = world.open_packet()
    PeoplePacket.objects.create(packet=packet, participant=who(growth, "ann"), key="k")

    made = ban(growth, "ann")
    packet.refresh_from_db()
    assert packet.state == Packet.State.PAUSED

    ban_lift(ban_id=made.pk, actor="staff:zoe", reason="a mistake")
    packet.refresh_from_db()
    assert packet.state == Packet.State.OPEN


def test_a_packet_that_staff_have_paused_for_another_reason_stays_paused() -> None:
    growth = sharing()
    packet = world.open_packet()
    PeoplePacket.objects.create(packet=packet, participant=who(growth, "ann"), key="k")
    packet_pause(packet_id=packet.pk, actor="staff:eva", reason="a stolen purse")

    made = ban(growth, "ann")
    ban_lift(ban_id=made.pk, actor="staff:zoe", reason="a mistake")

    packet.refresh_from_db()
    assert packet.state == Packet.State.PAUSED


def test_whoever_dies_after_banning_leaves_the_packets_to_the_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    growth = sharing()
    packet = world.open_packet()
    PeoplePacket.objects.create(packet=packet, participant=who(growth, "ann"), key="k")
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(bans, "_packets_stop", _dies)
        ban(growth, "ann")

    bans_carry_out()

    packet.refresh_from_db()
    assert packet.state == Packet.State.PAUSED


# --- two bans of one person -----------------------------------------------------------------------


def test_links_stay_revoked_until_the_last_ban_is_lifted() -> None:
    growth = sharing()
    link = link_of(growth, "ann")
    everywhere, here = ban(growth, "ann", everywhere=True), ban(growth, "ann")

    ban_lift(ban_id=everywhere.pk, actor="staff:zoe", reason="only here")
    link.refresh_from_db()
    assert link.revoked_at is not None

    ban_lift(ban_id=here.pk, actor="staff:zoe", reason="a mistake")
    link.refresh_from_db()
    assert link.revoked_at is None


def _banned_twice() -> tuple[CampaignGrowth, Ban]:
    """ann has a reward of 100 fen and as much that is her own; one ban holds the reward, and a
    second one has come."""
    growth = rewarding()
    bind(growth, "bob", "ann")
    rewarded(growth, "ann")
    claims(growth, "ann")
    settle(growth)
    first = ban(growth, "ann")
    carry_out()
    ban(growth, "ann", everywhere=True)
    bans_carry_out()
    return growth, first


def test_two_bans_hold_a_reward_once_and_until_both_are_lifted() -> None:
    growth, first = _banned_twice()
    assert held_fen(growth, "ann") == 100

    ban_lift(ban_id=first.pk, actor="staff:zoe", reason="the other one stands")
    bans_carry_out()
    bans_carry_out()

    assert held_fen(growth, "ann") == 100
    assert [hold.state for hold in Hold.objects.order_by("opened_at")] == ["released", "open"]


def test_what_was_forfeited_once_is_not_held_again() -> None:
    growth, _first = _banned_twice()
    hold_forfeit(hold_id=Hold.objects.get().pk, actor="staff:zoe", reason="a farm")
    Ban.objects.filter(is_done=False).update(due_at=Now())
    carry_out()

    assert held_fen(growth, "ann") == 0
    assert Hold.objects.count() == 1


def test_what_staff_hold_already_is_not_held_again_out_of_other_money() -> None:
    growth = rewarding()
    bind(growth, "bob", "ann")
    rewarded(growth, "ann")
    settle(growth)
    wallets.fill(growth.campaign.client_apps.get(), ["ann"], 5_000)
    wallet_hold(
        participant=who(growth, "ann"), campaign=growth.campaign, actor="staff:eva", reason="odd"
    )
    ban(growth, "ann")
    carry_out()

    assert held_fen(growth, "ann") == 100
    assert BanReward.objects.get().hold is None


@pytest.mark.control
def test_bans_that_do_not_look_at_each_other_hold_other_money_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bans, "_REWARDS", bans._REWARDS.replace(freezing.IS_HELD, "false"))
    monkeypatch.setattr(freezing, "_is_taken", lambda reward: False)
    monkeypatch.setattr(freezing, "holdable_fen", lambda person, campaign: 1_000)
    growth, _first = _banned_twice()

    assert held_fen(growth, "ann") == 200


# --- at the doors ---------------------------------------------------------------------------------


def _packet_from_which_cem_is_banned() -> tuple[CampaignGrowth, Packet]:
    growth = sharing()
    packet = Packet.objects.get(campaigns=growth.campaign)
    registry.view(packet.pk)
    ban(growth, "cem")
    return growth, packet


def _cem_claims(growth: CampaignGrowth, packet: Packet) -> Outcome:
    return world.claim(packet, world.person("cem", app_of(growth.campaign)))


def test_a_process_that_remembers_the_packet_blocks_within_seconds() -> None:
    growth, packet = _packet_from_which_cem_is_banned()

    def knows() -> bool:
        view = registry.view(packet.pk)
        return view is not None and bool(view.blocked)

    wait_until(knows, 5.0, "another look at the packet")

    assert _cem_claims(growth, packet).result is Result.BLOCKED
    assert not Claim.objects.exists()
    assert world.redis_meta(packet)[b"left_count"] == b"10", "no portion was cut for nothing"


@pytest.mark.control
def test_a_door_that_knows_of_no_bans_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packets.claiming.registry.blocked_before", lambda gate_id: ())
    growth, packet = _packet_from_which_cem_is_banned()
    world.forget_views()

    assert _cem_claims(growth, packet).result is Result.WON


def test_no_more_people_are_banned_than_a_door_can_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    growth = sharing()
    monkeypatch.setattr("packets.blocking.MAX_BLOCKED", 1)
    ban(growth, "ann")

    with pytest.raises(ServiceError, match="1 people are banned already"):
        ban(growth, "bob")
    assert Ban.objects.count() == Block.objects.count() == 1
    ban(growth, "bob", everywhere=True)


# --- rewards that come late -----------------------------------------------------------------------


def _chain() -> CampaignGrowth:
    """ann ← bob ← cem."""
    growth = rewarding()
    known(growth, "ann", "bob")
    bind(growth, "bob", "ann")
    bind(growth, "cem", "bob")
    return growth


def _of_cem(growth: CampaignGrowth) -> Reward:
    """bob's reward for cem."""
    return earned(growth, Referral.objects.latest("id"), Reward.Side.INVITER)


def test_a_reward_granted_after_the_ban_is_held_where_the_friend_came_before_it() -> None:
    growth = _chain()
    ban(growth, "ann")
    carry_out()

    _of_cem(growth)
    bind(growth, "dan", "bob")
    earned(growth, Referral.objects.latest("id"), Reward.Side.INVITER)
    settle(growth)
    carry_out()

    assert held_fen(growth, "bob") == 100, "for cem; dan came later"
    assert BanReward.objects.count() == 1


def test_a_claim_whose_row_is_missing_at_the_ban_gets_it_and_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    growth = _chain()
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(granting, "_write", _dies)
        _of_cem(growth)
    ban(growth, "bob")
    carry_out()
    world.forget_views()

    assert _of_cem(growth).state == "granted"
    settle(growth)
    carry_out()

    assert held_fen(growth, "bob") == 100


def _dies(*args: object, **named: object) -> Reward:
    raise InterruptedError


def _bans_ann_while_bobs_reward_is_written(monkeypatch: pytest.MonkeyPatch, meet_s: float) -> int:
    """What of it is held in the end. The row is written, and its transaction still open, when the
    ban comes; the ban has a moment to get ahead of it, and without the lock it takes as long as it
    needs."""
    growth = _chain()
    written, banned = threading.Event(), threading.Event()
    emit = granting.outbox_emit

    def late(*args: Any, **named: Any) -> None:
        emit(*args, **named)
        written.set()
        banned.wait(meet_s)

    def bans() -> None:
        assert written.wait(10)
        ban(growth, "ann")
        bans_carry_out()
        banned.set()

    monkeypatch.setattr(granting, "outbox_emit", late)
    done = world.together([lambda: _of_cem(growth), bans], threads=2)
    assert [one for one in done if isinstance(one, BaseException)] == []
    settle(growth)
    carry_out()
    return held_fen(growth, "bob")


def test_a_reward_that_is_being_written_at_the_ban_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _bans_ann_while_bobs_reward_is_written(monkeypatch, meet_s=0.3) == 100


@pytest.mark.control
def test_without_waiting_for_it_the_ban_misses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("referrals.forest.bans._lock_grants", lambda function: None)
    assert _bans_ann_while_bobs_reward_is_written(monkeypatch, meet_s=30.0) == 0
