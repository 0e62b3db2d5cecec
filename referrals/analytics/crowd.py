"""A campaign's people, one row each: when they came, through whom, what they did.

A person of a campaign is whoever an app reported as joined, has a share link, is in the forest, or
has claimed there by themselves; they came at the first of these moments. Rewards are claimed for
people, by us, so they are neither a way to come nor a sign of life.

Claims can be a hundred times as many as everything else. Beyond `CLAIMS_MAX` only those of every
second, fourth, … person are read: digests are evenly spread, so the people whose digests are low
are a fair sample. Then `one_in` says of how many each stands for, and only they are `looked` at
wherever a claim matters; links, visits and the forest are always counted in full.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db.models import Exists, OuterRef, Sum

from campaign.models import Campaign, CampaignGrowth, Channel
from packets.models import Claim, Lane, Packet
from referrals.analytics import reading
from referrals.analytics.reading import Table
from referrals.events.receiving import MAX_AGE
from referrals.models import Ban

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]

CLAIMS_MAX = 4_000_000  # some seconds of reading, some hundred megabytes while it lasts
MOST_FOR_ONE = 256  # people whose digests begin with a byte of zero
NOBODY = -1
CHANNELS = tuple(Channel.values)

_LINKS = """
    SELECT participant AS who, id, extract(epoch FROM created_at),
           COALESCE(array_position(%(channels)s::text[], channel::text), 0)
      FROM referrals_sharelink
     WHERE campaign_id = %(campaign)s AND created_at < %(until)s
       AND (participant, channel) > (%(after)s::bytea, %(after_channel)s::text)
     ORDER BY participant, channel LIMIT %(rows)s
"""
_EDGES = """
    SELECT edge.invitee, edge.inviter, extract(epoch FROM edge.bound_at), edge.link_id,
           COALESCE(earned.qualified_by <> '', false)
      FROM referrals_referral AS edge
      LEFT JOIN referrals_qualification AS earned ON earned.referral_id = edge.id
     WHERE edge.campaign_id = %(campaign)s AND edge.invitee > %(after)s
       AND edge.bound_at < %(until)s
     ORDER BY edge.invitee LIMIT %(rows)s
"""
_CLAIMS = """
    SELECT participant, extract(epoch FROM committed_at), amount_fen
      FROM packets_claim
     WHERE lane_id = %(lane)s AND position > %(after)s AND position <= %(to)s
       AND committed_at < %(until)s AND substr(participant, 1, 1) < %(below)s
"""
_BOUNDARY = """
    SELECT at FROM referrals_serverevent
     WHERE kind = 'joined' AND at >= %(start)s AND at < %(until)s
     ORDER BY at OFFSET %(rows)s LIMIT 1
"""
_REPORTED = """
    SELECT participant, extract(epoch FROM at)
      FROM referrals_serverevent
     WHERE kind = 'joined' AND at >= %(start)s AND at < %(end)s AND campaign_id = %(campaign)s
"""
_SUSPECTS = """
    SELECT participant FROM referrals_riskmember
     WHERE campaign_id = %(campaign)s AND participant > %(after)s AND added_at < %(until)s
     ORDER BY participant LIMIT %(rows)s
"""


@dataclass(frozen=True, slots=True)
class Crowd:
    """People in the order of their digests, known here by the first 64 bits: that two of ten
    million share them is a chance of one in 300,000, and would miscount one person."""

    key: Keys
    rest: Keys  # the digests' other half
    joined_s: Floats  # seconds since 1970, as everywhere here
    inviter: Ints  # row, or NOBODY
    bound_s: Floats  # NaN for whoever came by themselves
    channel: Ints  # index into CHANNELS of the link they came by, or NOBODY
    qualified: Bools  # as friends: they have earned the rewards
    sharing: Bools  # has a link
    claimed: Bools  # of those looked at
    won_fen: Ints  # by own claims, of those looked at
    suspect: Bools  # in a risk case, or banned
    one_in: int
    links: tuple[int, ...]  # per channel

    @property
    def size(self) -> int:
        return int(self.key.size)

    @property
    def looked(self) -> Bools:
        return self.key <= np.uint64((1 << 64) // self.one_in - 1)

    @property
    def invited(self) -> Bools:
        found: Bools = self.inviter != NOBODY
        return found

    def digests(self, rows: Ints) -> list[bytes]:
        both = np.stack([self.key[rows], self.rest[rows]], axis=1).astype(">u8")
        return [row.tobytes() for row in both]

    def scaled(self, found: Bools) -> int:
        """How many people that is, by those looked at."""
        return int(np.count_nonzero(found & self.looked)) * self.one_in


def rewards_of(campaign: Campaign) -> set[uuid.UUID]:
    """The packets that rewards are paid from, those of earlier days too. Such a packet pays nothing
    else, so the first claim of a lane says what all of them are."""
    growth = CampaignGrowth.objects.filter(campaign=campaign).first()
    now = (growth.inviter_packet_id, growth.invitee_packet_id) if growth else ()
    first = Claim.objects.filter(lane__packet=OuterRef("pk"), position=1)
    paid = Packet.objects.filter(campaign_link__campaign=campaign, needs_ticket=True).filter(
        Exists(first.filter(reward__isnull=False))
    )
    return {one for one in (*now, *paid.values_list("pk", flat=True)) if one}


def crowd_of(campaign: Campaign, until: dt.datetime) -> Crowd:
    names: dict[str, Any] = {"campaign": campaign.pk, "until": until, "channels": list(CHANNELS)}
    links = _together(_links(names))
    edges = _together(
        reading.by_key(
            _EDGES,
            names,
            {
                "who": reading.DIGEST,
                "inviter": reading.DIGEST,
                "at": reading.FLOAT,
                "link": reading.WHOLE,
                "qualified": reading.TRUTH,
            },
            "who",
        )
    )
    lanes, one_in = _lanes(campaign)
    claims = _together(_claims(lanes, until, one_in))
    reported = _together(
        reading.table(
            _REPORTED,
            {"campaign": campaign.pk, "start": start, "end": end},
            {"who": reading.DIGEST, "at": reading.FLOAT},
        )
        for start, end in reading.by_time(_BOUNDARY, {}, campaign.created_at - MAX_AGE, until)
    )
    suspects = _suspects(campaign, names)
    return _crowd(links, edges, claims, reported, suspects, one_in)


def _links(names: dict[str, Any]) -> Iterator[Table]:
    """Ranges in the order of (participant, channel): a person has a link for each channel."""
    columns = {
        "who": reading.DIGEST,
        "id": reading.WHOLE,
        "at": reading.FLOAT,
        "channel": reading.SMALL,
    }
    after = {"after": b"", "after_channel": ""}
    while True:
        found = reading.table(_LINKS, {**names, **after, "rows": reading.ROWS_A_RANGE}, columns)
        yield found
        if found.size < reading.ROWS_A_RANGE:
            return
        last = found[-1]
        after = {"after": last["who"].tobytes(), "after_channel": CHANNELS[last["channel"] - 1]}


def _together(parts: Iterable[Table]) -> Table | None:
    found = list(parts)
    return np.concatenate(found) if found else None


def _lanes(campaign: Campaign) -> tuple[list[tuple[int, int]], int]:
    """Lanes that people claim from by themselves with their numbers of claims; how many people
    each one looked at stands for."""
    lanes = Lane.objects.filter(packet__campaign_link__campaign=campaign).exclude(
        packet__in=rewards_of(campaign)
    )
    claims, one_in = lanes.aggregate(n=Sum("claimed_count"))["n"] or 0, 1
    while claims > CLAIMS_MAX * one_in and one_in < MOST_FOR_ONE:
        one_in *= 2
    return list(lanes.order_by("pk").values_list("pk", "claimed_count")), one_in


def _claims(lanes: list[tuple[int, int]], until: dt.datetime, one_in: int) -> Iterable[Table]:
    below = bytes([256 // one_in]) if one_in > 1 else b"\xff\xff"
    columns = {"who": reading.DIGEST, "at": reading.FLOAT, "fen": reading.WHOLE}
    for lane, count in lanes:
        for start in range(0, count, reading.ROWS_A_RANGE):
            yield reading.table(
                _CLAIMS,
                {
                    "lane": lane,
                    "after": start,
                    "to": start + reading.ROWS_A_RANGE,
                    "until": until,
                    "below": below,
                },
                columns,
            )


def _suspects(campaign: Campaign, names: dict[str, Any]) -> Keys:
    found = _together(reading.by_key(_SUSPECTS, names, {"who": reading.DIGEST}, "who"))
    banned = Ban.objects.filter(lifted_at=None)
    people = banned.filter(campaign=campaign) | banned.filter(campaign=None)
    digests = [bytes(one) for one in people.values_list("participant", flat=True)]
    keys = np.array([int.from_bytes(one[:8], "big") for one in digests], np.uint64)
    return np.concatenate([keys, _halves(found, "who")[0]])


def _halves(rows: Table | None, name: str) -> tuple[Keys, Keys]:
    if rows is None or not rows.size:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    both = np.ascontiguousarray(rows[name]).view(">u8").reshape(-1, 2).astype(np.uint64)
    return both[:, 0], both[:, 1]


def _column(rows: Table | None, name: str, kind: type) -> npt.NDArray[np.generic]:
    return np.empty(0, kind) if rows is None else rows[name].astype(kind)


def _crowd(
    links: Table | None,
    edges: Table | None,
    claims: Table | None,
    reported: Table | None,
    suspects: Keys,
    one_in: int,
) -> Crowd:
    traces = [
        (links, "who"), (edges, "who"), (edges, "inviter"), (claims, "who"), (reported, "who"),
    ]  # fmt: skip
    halves = [_halves(rows, name) for rows, name in traces]
    key = np.unique(np.concatenate([first for first, _ in halves]))
    places = [np.searchsorted(key, first) for first, _ in halves]
    rest = np.zeros(key.size, np.uint64)
    joined_s = np.full(key.size, np.inf)
    for (rows, _), (_, second), place in zip(traces, halves, places, strict=True):
        rest[place] = second
        np.minimum.at(joined_s, place, _column(rows, "at", np.float64))
    at_link, at_friend, at_inviter, at_claim, _ = places
    inviter = np.full(key.size, NOBODY)
    inviter[at_friend] = at_inviter
    bound_s = np.full(key.size, np.nan)
    bound_s[at_friend] = _column(edges, "at", np.float64)
    channel = np.full(key.size, NOBODY)
    channel[at_friend] = _channels(links, edges)
    qualified, sharing, claimed = (np.zeros(key.size, np.bool_) for _ in range(3))
    qualified[at_friend] = _column(edges, "qualified", np.bool_)
    sharing[at_link] = True
    claimed[at_claim] = True
    won_fen = np.zeros(key.size, np.int64)
    np.add.at(won_fen, at_claim, _column(claims, "fen", np.int64))
    by_channel = np.bincount(_column(links, "channel", np.int64), minlength=len(CHANNELS) + 1)
    return Crowd(
        key=key,
        rest=rest,
        joined_s=joined_s,
        inviter=inviter,
        bound_s=bound_s,
        channel=channel,
        qualified=qualified,
        sharing=sharing,
        claimed=claimed,
        won_fen=won_fen,
        suspect=np.isin(key, suspects),
        one_in=one_in,
        links=tuple(by_channel[1:].tolist()),
    )


def _channels(links: Table | None, edges: Table | None) -> Ints:
    """For each edge the index of its link's channel."""
    if links is None or edges is None:
        return np.full(0 if edges is None else edges.size, NOBODY)
    order = np.argsort(links["id"], kind="stable")
    ids = links["id"][order]
    place = np.minimum(np.searchsorted(ids, edges["link"]), ids.size - 1)
    found = links["channel"][order][place].astype(np.int64) - 1
    return np.where(ids[place] == edges["link"], found, NOBODY)
