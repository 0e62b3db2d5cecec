"""The detectors: what each looks for, and what was seen, in numbers; the policy weighs it.

A finding is about a cluster: people tied by a shared purse or phone *and* by invitations. What is
innocent by itself never suffices: many invitees, one network, a family's phone, a shop's phone, a
class that joins within minutes. Money is held where several independent things come together.

    SELF           paid into the inviter's own purse, from the inviter's own phone
    CYCLE          tried to become the invitee of one's own invitee
    STAR_BURST     many invitees of one person, one after the other like a clock
    CHAIN          each invites exactly the next, many times
    CLUSTER        many accounts, few purses or phones
    FAST           claims sooner after joining than a person can
    DEAD_CHILDREN  nobody was seen again after the money
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from referrals.risk.people import NONE, Bools, Ints, People, components, counted, neighbours
from referrals.risk.reasons import Reason

# An identifier that more people have is a hub (a bank's collective account, an operator's gateway)
# and says nothing about any two of them.
SHARED_MAX = 250
# A phone or purse is tied to a farm when so many of those who have it invited each other; the
# customers of a shop's lent phone mostly don't.
RELATED_SHARE = 0.5
# A purse or phone of up to so many people ties them even when none of them invited another.
SHARED_FEW = 20
FARMING_SHARE = 0.7  # of somebody's invitees: in the same cluster, or never seen again
HEAD_CHILDREN = 3  # so many sharing invitees, and most of them, make an inviter part of a cluster
CLUSTER_PEOPLE = 5  # smaller ones are families
PEOPLE_PER_TIE = 1.6  # so many accounts for one purse, or one phone
BURST_CHILDREN, BURST_SPREAD = 12, 0.6  # invitees; deviation of their gaps over the mean
CHAIN_PEOPLE, CHAIN_SHARE = 6, 0.7
FAST_S, FAST_SHARE = 6.0, 0.6
DEAD_SHARE = 0.6
SELF_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Finding:
    """People who belong together, and why that is suspicious. `evidence` has each reason's numbers,
    never an identifier."""

    rows: Ints
    evidence: Mapping[Reason, Mapping[str, float]] = field(default_factory=dict)

    @property
    def reasons(self) -> list[Reason]:
        return list(self.evidence)


def find(people: People) -> list[Finding]:
    """All clusters of which anything speaks, those of the first people first."""
    findings = [
        Finding(rows, evidence) for rows in clusters(people) if (evidence := _seen(people, rows))
    ]
    return sorted(findings, key=lambda found: int(found.rows[0]))


def clusters(people: People) -> list[Ints]:
    """Groups of people tied by purses, phones and invitations; those of one or two are left out."""
    size = people.inviter.size
    invited = np.flatnonzero(people.inviter != NONE)
    tied = np.zeros(size, np.bool_)
    ends: list[tuple[Ints, Ints]] = []
    for identifier in (people.payee, people.device):
        shared = _shared(people.inviter, identifier)
        tied |= shared
        ends.append(neighbours(identifier, shared))
    children, theirs = _invitees(people.inviter, tied)
    tied |= _heads(people.inviter, tied, children, theirs)
    # Two tied people of whom one invited the other belong together, whatever they share. Not where
    # most invitees share nothing: a popular person's family is no bridge to a farm, neither by
    # that person nor by another of the family, whose friend a farmer may be.
    family = _joined(size, ends)
    bridge = tied & (2 * theirs >= children)
    bridge &= 2 * _summed(family, theirs) >= _summed(family, children)
    both = invited[bridge[invited] & bridge[people.inviter[invited]]]
    label = _joined(size, [*ends, (both, people.inviter[both])])
    label = _with_dead_invitees(people, np.where(tied, label, NONE))
    rows = np.flatnonzero(label != NONE)
    rows = rows[np.argsort(label[rows], kind="stable")]
    cuts = np.flatnonzero(np.diff(label[rows])) + 1
    return [group for group in np.split(rows, cuts) if group.size > 2]


def _joined(size: int, ends: list[tuple[Ints, Ints]]) -> Ints:
    """For each person the lowest row among those whom these edges connect them with."""
    return components(
        size, np.concatenate([one for one, _ in ends]), np.concatenate([two for _, two in ends])
    )


def _summed(label: Ints, numbers: Ints) -> Ints:
    """For each person the sum over all with their label."""
    sums: Ints = np.bincount(label, weights=numbers, minlength=label.size)[label].astype(np.int64)
    return sums


def _shared(inviter: Ints, identifier: Ints) -> Bools:
    """Whose identifier is shared with relatives: inviter, invitees, or invitees of one inviter."""
    has = identifier != NONE
    many = counted(identifier)
    among = has & (many > 1) & (many <= SHARED_MAX)
    rows = np.flatnonzero(among & (inviter != NONE))
    with_inviter = rows[identifier[rows] == identifier[inviter[rows]]]
    related = np.zeros(identifier.size, np.bool_)
    related[with_inviter] = related[inviter[with_inviter]] = True
    pairs = np.stack([identifier[rows], inviter[rows]])
    _, where, counts = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
    related[rows[counts[where.ravel()] > 1]] = True
    # Purses of a chain are dealt anywhere in it.
    groups, where = np.unique(identifier, return_inverse=True)
    share = np.bincount(where, weights=related, minlength=groups.size) / np.bincount(where)
    tied: Bools = among & ((share[where] >= RELATED_SHARE) | (many <= SHARED_FEW))
    return tied


def _invitees(inviter: Ints, such: Bools) -> tuple[Ints, Ints]:
    """For each person, how many they invited, and how many of these are such."""
    above = inviter[inviter != NONE]
    children = np.bincount(above, minlength=inviter.size)
    return children, np.bincount(above[such[inviter != NONE]], minlength=inviter.size)


def _heads(inviter: Ints, tied: Bools, children: Ints, theirs: Ints) -> Bools:
    """Who hid their own purse, but stands above those who share: the head of a star, whose invitees
    mostly do, or an account inside a chain."""
    inside = (inviter != NONE) & tied[inviter]
    heads: Bools = (2 * theirs > children) & ((theirs >= HEAD_CHILDREN) | inside)
    return heads


def _with_dead_invitees(people: People, label: Ints) -> Ints:
    """Who was invited by a cluster and was never seen again belongs to it.

    Only below those who invited hardly anybody else: somebody popular may have a farmer among
    many friends. And one step only: a friend's friend who came through a farmer's link is left
    alone.
    """
    sizes = np.bincount(label[label != NONE], minlength=label.size)
    large = (label != NONE) & (sizes[label] >= CLUSTER_PEOPLE)
    if people.active.shape[1] == 0:
        return label  # nobody knows who was seen again
    dead: Bools = ~np.asarray(people.active.any(axis=1))
    found = label.copy()
    invited = np.flatnonzero(people.inviter != NONE)
    above = people.inviter[invited]
    alike = dead.copy()
    alike[invited] |= (label[invited] != NONE) & (label[invited] == label[above])
    children, theirs = _invitees(people.inviter, alike)
    farming = large & (theirs >= FARMING_SHARE * children)
    below = invited[(label[invited] == NONE) & dead[invited] & farming[above]]
    found[below] = label[people.inviter[below]]
    return found


# --- what was seen in one cluster -----------------------------------------------------------------


def _seen(people: People, rows: Ints) -> dict[Reason, Mapping[str, float]]:
    evidence: dict[Reason, Mapping[str, float]] = {}
    for reason, look in (
        (Reason.CLUSTER, _cluster),
        (Reason.DEAD_CHILDREN, _dead),
        (Reason.FAST, _fast),
        (Reason.STAR_BURST, _burst),
        (Reason.CHAIN, _chain),
        (Reason.CYCLE, _cycle),
        (Reason.SELF, _oneself),
    ):
        numbers = look(people, rows)
        if numbers:
            evidence[reason] = numbers
    return evidence


Seen = Mapping[str, float] | None


def _cluster(people: People, rows: Ints) -> Seen:
    if rows.size < CLUSTER_PEOPLE:
        return None
    for name, identifier in (("purses", people.payee), ("phones", people.device)):
        known = identifier[rows]
        known = known[known != NONE]
        different = np.unique(known).size
        if known.size >= CLUSTER_PEOPLE and known.size >= PEOPLE_PER_TIE * different:
            return {"people": int(known.size), name: different}
    return None


def _dead(people: People, rows: Ints) -> Seen:
    if people.active.shape[1] == 0 or rows.size < CLUSTER_PEOPLE:
        return None  # the app doesn't report who comes back
    dead = int((~people.active[rows].any(axis=1)).sum())
    return {"people": rows.size, "dead": dead} if dead >= DEAD_SHARE * rows.size else None


def _fast(people: People, rows: Ints) -> Seen:
    took = people.claimed_s[rows] - people.joined_s[rows]
    took = took[~np.isnan(took)]
    if took.size < CLUSTER_PEOPLE:
        return None
    fast = int((took < FAST_S).sum())
    return {"claims": took.size, "fast": fast} if fast >= FAST_SHARE * took.size else None


def _burst(people: People, rows: Ints) -> Seen:
    inviters, counts = np.unique(people.inviter[rows], return_counts=True)
    for inviter in inviters[(inviters != NONE) & (counts >= BURST_CHILDREN)]:
        gaps = np.diff(np.sort(people.joined_s[rows[people.inviter[rows] == inviter]]))
        mean = float(gaps.mean())
        if mean > 0 and gaps.std() < BURST_SPREAD * mean:
            return {"people": gaps.size + 1, "gap_s": round(mean)}
    return None


def _chain(people: People, rows: Ints) -> Seen:
    inviters = people.inviter[rows]
    inside = inviters[np.isin(inviters, rows)]
    _, counts = np.unique(inside, return_counts=True)
    only = int((counts == 1).sum())
    if only < CHAIN_PEOPLE or only < CHAIN_SHARE * rows.size:
        return None
    return {"people": rows.size, "one_invitee": only}


def _cycle(people: People, rows: Ints) -> Seen:
    tries = int(np.isin(people.refused, rows).all(axis=1).sum()) if people.refused.size else 0
    return {"tries": tries} if tries else None


def _oneself(people: People, rows: Ints) -> Seen:
    invited = rows[people.inviter[rows] != NONE]
    above = people.inviter[invited]
    same = (people.payee[invited] == people.payee[above]) & (people.payee[invited] != NONE)
    same &= (people.device[invited] == people.device[above]) & (people.device[invited] != NONE)
    count = int(same.sum())
    return {"people": count} if count and count >= SELF_SHARE * rows.size else None
