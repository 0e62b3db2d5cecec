"""How a campaign spreads: written down with the draft, approved with it, loosened afterwards.

Before the launch growth is part of the version that a second person approves: changing it takes the
campaign back to a draft. Afterwards only what `FAVOUR` lets pass is accepted: more for the people
who take part, or more peace for everybody else.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Sum
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign import growth_rules, rules
from campaign.convergence import campaign_locked
from campaign.disclosing.publishing import disclosure_publish
from campaign.models import WAYS, Campaign, CampaignGrowth, Disclosure
from campaign.selectors import approval_valid
from campaign.services import review
from campaign.services.common import (
    EDITABLE,
    RUNNING,
    audit,
    require_state,
    require_version,
    touched,
)
from campaign.services.drafts import campaign_packet_add, campaign_packet_change
from engine.lib.errors import ServiceError
from packets.models import Packet

Judge = Callable[[Any, Any], bool]


def _more(before: Any, after: Any) -> bool:
    return bool(after >= before)


def _less(before: Any, after: Any) -> bool:
    return bool(after <= before)


def _richer(before: Packet | None, after: Packet | None) -> bool:
    """Whether nobody is worse off with the other packet: neither at worst nor on average, and it
    lasts for as many people, as long."""
    if after is None or after.state != Packet.State.OPEN:
        return False
    if before is None:
        return True
    at_worst = least_fen(after) >= least_fen(before)
    on_average = after.total_fen * before.count >= before.total_fen * after.count
    lasts = left_count(after) >= left_count(before) and after.closes_at >= before.closes_at
    return at_worst and on_average and lasts


def least_fen(packet: Packet) -> int:
    """The smallest portion that the packet can give."""
    fixed = packet.strategy == Packet.Strategy.FIXED
    return packet.total_fen // packet.count if fixed else packet.min_fen


def left_count(packet: Packet) -> int:
    """Portions that can still be claimed."""
    if packet.state == Packet.State.CLOSED:
        return 0
    left = packet.lanes.aggregate(left=Sum(F("count") - F("claimed_count")))["left"]
    return int(left or 0)


# Of a launched campaign, by field: whether (before, after) favours people. What isn't here stays.
# docs/marketing.md shows this as a table.
FAVOUR: dict[str, Judge] = {
    # Off is safety. On again only where it was approved so: `_require_approved`.
    "is_on": lambda _before, _after: True,
    "window_s": _more,
    "new_only": lambda _before, after: not after,
    "inviter_packet": _richer,
    "invitee_packet": _richer,
    "inviter_cap": _more,
    "shared_friends": _more,
    "visits_per_link_hour": _more,
    # Peace for people who are shared at.
    "share_cooldown_s": _more,
    "complaint_per_mille": _less,
    "complaint_min_visits": _less,
}


def growth_edit(
    *,
    campaign_id: uuid.UUID,
    actor: str,
    by: User | None = None,
    version: int | None = None,
    reason: str = "",
    **fields: Any,
) -> CampaignGrowth:
    """The campaign's growth with these fields (`growth_rules.FIELDS`); the others stay.

    The first call makes it. `version` is the campaign's as the caller saw it.
    """
    unknown = set(fields) - set(growth_rules.FIELDS)
    if unknown:
        raise TypeError(f"growth has no {', '.join(sorted(unknown))}")
    if fields.get("ways") is not None:
        fields["ways"] = sorted(set(fields["ways"]), key=_place)
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, (*EDITABLE, *RUNNING))
        require_version(campaign, version)
        known = growth_rules.growth_of(campaign)
        growth = known or CampaignGrowth(campaign=campaign)
        before = {name: getattr(growth, name) for name in fields}
        changed = sorted(name for name in fields if before[name] != fields[name])
        if known is not None and not changed:
            return known
        if campaign.state in RUNNING:
            _require_favour(campaign, known, before, {name: fields[name] for name in changed})
        for name, value in fields.items():
            setattr(growth, name, value)
        growth_rules.check_growth(growth)
        if campaign.state in EDITABLE:
            review.void(campaign, actor=actor, by=by)
        growth.save()
        if campaign.state in RUNNING:
            disclosure_publish(campaign=campaign, cause=Disclosure.Cause.GROWTH)
        touched(campaign, by)
        if campaign.state in RUNNING:
            disclosure_publish(campaign=campaign, cause=Disclosure.Cause.GROWTH)
        audit(
            campaign,
            actor,
            "growth",
            before={name: _plain(before[name]) for name in changed} if known else None,
            after={name: _plain(fields[name]) for name in changed},
            reason=reason,
        )
    return growth


def _place(way: str) -> int:
    """Its place in the list of all; what is none comes last, to be refused."""
    return WAYS.index(way) if way in WAYS else len(WAYS)


def _plain(value: Any) -> Any:
    return value.public_id if isinstance(value, Packet) else value


def _require_favour(
    campaign: Campaign,
    known: CampaignGrowth | None,
    before: dict[str, Any],
    wanted: dict[str, Any],
) -> None:
    if known is None:
        raise ServiceError(
            "is_on",
            "launched",
            gettext_lazy("A campaign that has started can't begin to spread."),
        )
    for name, value in wanted.items():
        judge = FAVOUR.get(name)
        if judge is None or not judge(before[name], value):
            raise ServiceError(
                name,
                "not_in_favour",
                gettext_lazy(
                    "After the launch only changes in favour of those who take part are accepted."
                ),
            )
    if wanted.get("is_on"):
        _require_approved(campaign)


def _require_approved(campaign: Campaign) -> None:
    approval = approval_valid(campaign)
    approved = approval.document.get("growth") if approval is not None else None
    if not (approved or {}).get("is_on"):
        raise ServiceError(
            "is_on",
            "not_approved",
            gettext_lazy("This version was approved without people sharing it."),
        )


def growth_reward_packets_make(
    *,
    campaign_id: uuid.UUID,
    inviter_fen: int,
    invitee_fen: int,
    friends: int,
    actor: str,
    by: User | None = None,
) -> CampaignGrowth:
    """Packets of fixed portions that need a ticket, for so many friends, in one step.

    A fixed packet that pays the side already gets these portions; else one is made. A side with
    nothing to get has none. Where an inviter's inviter is rewarded too, the inviters' packet has
    portions for both.
    """
    if inviter_fen < 0 or invitee_fen < 0 or not inviter_fen + invitee_fen:
        raise ServiceError(
            "inviter_fen", "out_of_range", gettext_lazy("Somebody must get something.")
        )
    if friends < 1:
        raise ServiceError(
            "friends", "out_of_range", gettext_lazy("This must be more than nothing.")
        )
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, EDITABLE)
        known = growth_rules.growth_of(campaign) or CampaignGrowth(campaign=campaign)
        made: dict[str, Any] = {}
        for side, name, each_fen, count in (
            ("inviter_packet", _("Reward for inviting"), inviter_fen, friends * known.depth),
            ("invitee_packet", _("Reward for the friend"), invitee_fen, friends),
        ):
            rules.check_budget(max(each_fen, 1) * count, "friends")
            wanted: dict[str, Any] = {"total_fen": each_fen * count, "count": count}
            wanted |= {"actor": actor, "by": by}
            paying = getattr(known, side)
            made[side] = _reward_packet(campaign, paying, name, wanted) if each_fen else None
        return growth_edit(campaign_id=campaign_id, actor=actor, by=by, **made)


def _reward_packet(
    campaign: Campaign, paying: Packet | None, name: str, wanted: dict[str, Any]
) -> Packet:
    cut: dict[str, Any] = {"strategy": Packet.Strategy.FIXED, "needs_ticket": True}
    if paying is None or paying.strategy != Packet.Strategy.FIXED:
        return campaign_packet_add(campaign_id=campaign.pk, name=name, **wanted, **cut)
    if (paying.total_fen, paying.count) == (wanted["total_fen"], wanted["count"]):
        return paying
    return campaign_packet_change(
        campaign_id=campaign.pk,
        packet_id=paying.pk,
        name=paying.name,
        opens_at=paying.opens_at,
        closes_at=paying.closes_at,
        **wanted,
        **cut,
    )


def growth_unfold(
    *,
    campaign_id: uuid.UUID,
    document: dict[str, Any],
    packets: Sequence[uuid.UUID | None],
    actor: str,
    by: User | None = None,
) -> None:
    """The growth of a template or a copied campaign, for a draft made from it.

    `packets`: of each packet in the document, in its order, the draft's; None where it was left
    out. A reward whose packet no longer serves is left out too, for its author to choose anew.
    """
    wanted = document.get("growth")
    if not wanted:
        return
    fields = {name: wanted[name] for name in growth_rules.PLAIN if name in wanted}
    campaign = Campaign.objects.get(pk=campaign_id)
    for name in growth_rules.REWARDS:
        place = wanted.get(name)
        made = packets[place] if place is not None and place < len(packets) else None
        packet = Packet.objects.filter(pk=made).first() if made is not None else None
        fields[name] = packet if packet is not None and _serves(campaign, packet) else None
    growth_edit(campaign_id=campaign_id, actor=actor, by=by, **fields)


def _serves(campaign: Campaign, packet: Packet) -> bool:
    try:
        growth_rules.check_reward(campaign, packet, "packet")
    except ServiceError:
        return False
    return True
