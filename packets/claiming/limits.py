"""The limits of the claim path: which rules a claim meets, and what is asked of Redis for each.

A rule counts one subject (a person, a device, an address, a packet's or a campaign's whole crowd)
in windows that follow one another ("3 a day"), or paces it (GCRA: "10 a second, 50 at once"). Each
subject is exact by itself and lives in a slot of its own, so a claim asks for all of them in one
pipelined trip. `flow.py` says when they are asked, and gives back what came to nothing.

What a claim is worth is known only once it is cut: a rule over an amount refuses once its sum is
reached, and may be passed by the claims that were under way at that moment.
"""

from __future__ import annotations

import enum
import ipaddress
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from engine.lib import lua
from engine.lib.auth import Caller

IPV4_SUBNET, IPV6_SUBNET = 24, 64  # what one household, office or carrier's street shares
DIGEST_BYTES = 12
OVER_LIMIT = "over_limit"  # what the doors count such answers as, beside the results
UNBOUNDED = 2**52  # of what is written down after the win: it is true, whatever the limit says


class Subject(enum.StrEnum):
    """Whom a rule counts."""

    PARTICIPANT = "participant"
    DEVICE = "device"
    IP = "ip"
    SUBNET = "subnet"
    GROUP = "group"
    LINK = "link"
    INVITER = "inviter"
    PACKET = "packet"
    CAMPAIGN = "campaign"


class Measure(enum.StrEnum):
    CLAIMS = "claims"
    AMOUNT = "amount"


class Method(enum.StrEnum):
    WINDOW = "window"
    PACE = "pace"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the staff's, as the claim path needs it.

    `limit`: claims, or fen; `burst` is of a pace. `offset_s` puts windows of a day at the midnight
    of the rule's time zone.
    """

    id: int
    subject: Subject
    measure: Measure
    method: Method
    limit: int
    window_s: int
    burst: int
    offset_s: int
    refuse_when_away: bool


@dataclass(frozen=True, slots=True)
class Charge:
    """One rule met by one claim."""

    rule: Rule
    key: str

    def ask(self) -> lua.Call:
        """Count the claim (of a rule over an amount: ask whether anything is left)."""
        return self._call(1 if self.rule.measure is Measure.CLAIMS else 0, is_bounded=True)

    def add(self, amount_fen: int) -> lua.Call:
        """Write down what a claim was worth."""
        return self._call(amount_fen, is_bounded=False)

    def give_back(self, window: int) -> lua.Call:
        window_us = self._window_us() if self.rule.method is Method.PACE else 0
        return lua.Call(
            lua.load("packets", "limit_return"), (self.key,), (window, window_us, self.rule.limit)
        )

    def _call(self, cost: int, *, is_bounded: bool) -> lua.Call:
        rule = self.rule
        if rule.method is Method.WINDOW:
            limit = rule.limit if is_bounded else UNBOUNDED
            args = (limit, rule.window_s * 1000, rule.offset_s * 1000, cost)
            return lua.Call(lua.load("packets", "limit_window"), (self.key,), args)
        burst = rule.burst if is_bounded else UNBOUNDED
        pace = (self._window_us(), rule.limit, burst, cost)
        return lua.Call(lua.load("packets", "limit_pace"), (self.key,), pace)

    def _window_us(self) -> int:
        return self.rule.window_s * 1_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What Redis says of one charge. `left` and `wait_s` are for the headers of a refusal."""

    charge: Charge
    allowed: bool
    left: int
    window: int
    wait_s: int


def asked(charge: Charge, reply: Sequence[int]) -> Asked:
    allowed, left, window, wait_ms = (int(part) for part in reply)
    return Asked(charge, bool(allowed), left, window, max(1, math.ceil(wait_ms / 1000)))


class OverLimit(Exception):
    """A claim came over a limit: 429. Nothing of it is counted."""

    def __init__(self, refusals: Sequence[Asked]) -> None:
        super().__init__("over a limit")
        self.refusals = tuple(refusals)

    @property
    def retry_after_s(self) -> int:
        return max(refusal.wait_s for refusal in self.refusals)

    def headers(self) -> dict[str, str]:
        """`Retry-After`, and `RateLimit` and `RateLimit-Policy` as the IETF's httpapi group drafts
        them (draft-ietf-httpapi-ratelimit-headers-10): structured fields, one item for each rule.
        """
        rules = [refusal.charge.rule for refusal in self.refusals]
        return {
            "Retry-After": str(self.retry_after_s),
            "RateLimit": ", ".join(
                f'"{_name(one.charge.rule)}";r={one.left};t={one.wait_s}' for one in self.refusals
            ),
            "RateLimit-Policy": ", ".join(
                f'"{_name(rule)}";q={rule.limit};w={rule.window_s}' for rule in rules
            ),
        }

    @property
    def detail(self) -> str:
        subjects = sorted({refusal.charge.rule.subject.value for refusal in self.refusals})
        return (
            f"Too many claims of this {', of this '.join(subjects)}. "
            f"Try again in {self.retry_after_s} s."
        )


def _name(rule: Rule) -> str:
    return f"{rule.subject.value}-{rule.id}"


def charges_of(
    rules: Sequence[Rule],
    caller: Caller,
    address: str,
    packet_hex: str,
    campaign: int,
    secret: bytes = b"",
    share_code: str | None = None,
    inviter: bytes = b"",
) -> tuple[Charge, ...]:
    """The rules that a claim meets. Who names no device, group or link meets no rule about one.

    `address`: the client's, "" where it can't be told (all of those share one bucket). `secret`:
    what keeps addresses and names unreadable in Redis, the same in all processes. `inviter`: whose
    link `share_code` is, as far as `asks_for_inviter` wanted to know.
    """
    charges = []
    for rule in rules:
        subject = (
            inviter.hex()
            if rule.subject is Subject.INVITER
            else _subject(rule.subject, caller, address, packet_hex, campaign, secret, share_code)
        )
        if subject:
            charges.append(Charge(rule, f"limit:{{{rule.id}:{subject}}}"))
    return tuple(charges)


def asks_for_inviter(rules: Sequence[Rule], share_code: str | None) -> bool:
    return bool(share_code) and any(rule.subject is Subject.INVITER for rule in rules)


def _subject(
    subject: Subject,
    caller: Caller,
    address: str,
    packet_hex: str,
    campaign: int,
    secret: bytes,
    share_code: str | None,
) -> str:
    match subject:
        case Subject.PARTICIPANT:
            return caller.participant.hex()
        case Subject.DEVICE:
            return _of_app(caller, caller.device, secret) if caller.device else ""
        case Subject.GROUP:
            return _of_app(caller, caller.group, secret) if caller.group else ""
        case Subject.LINK:
            code = _code_of(share_code or "")
            return _of_app(caller, code, secret) if code else ""
        case Subject.IP:
            return _digest(address, secret)
        case Subject.SUBNET:
            return _digest(subnet_of(address), secret)
        case Subject.PACKET:
            return packet_hex
        case Subject.CAMPAIGN:
            return str(campaign)
        case Subject.INVITER:
            raise AssertionError("an inviter is found out before")


# As whoever reads codes takes them: however they were typed, it is the same link.
_TYPED_AS = str.maketrans({"O": "0", "I": "1", "L": "1"})


def _code_of(typed: str) -> str:
    return "".join(filter(str.isalnum, typed)).upper().translate(_TYPED_AS)


def _of_app(caller: Caller, text: str, secret: bytes) -> str:
    """Two apps may call different things the same."""
    return _digest(f"{caller.client_app_id}\0{text}", secret)


def _digest(text: str, secret: bytes) -> str:
    """Redis is copied and looked into: no address and no name stands there as it is. Keyed, because
    all addresses can be tried: there are 2^32 of them."""
    return blake2b(
        text.encode(), digest_size=DIGEST_BYTES, key=secret, person=b"laisee.limit"
    ).hexdigest()


def subnet_of(address: str) -> str:
    if not address:
        return ""
    prefix = IPV4_SUBNET if ipaddress.ip_address(address).version == 4 else IPV6_SUBNET
    return str(ipaddress.ip_network(f"{address}/{prefix}", strict=False))
