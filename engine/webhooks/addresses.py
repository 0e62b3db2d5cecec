"""Which addresses we call: those of the open internet. Pure.

Whoever may enter an address could otherwise have this server ask its own neighbours: databases,
metadata services, the admin. A name is no protection, since it may resolve to anything, and to
something else a moment later; so every address of a name is judged when the call is made, and the
call goes to the address that was judged (`calling.py`).
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from engine.lib.errors import ServiceError
from engine.webhooks.models import URL_MAX_CHARS

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HTTPS_PORT = 443
# Below it live services that were there before the web; none of them is a webhook's receiver.
FIRST_FREE_PORT = 1024
_LABEL = r"[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?"
# A name of the open internet: at least two labels, the last of which is no number (`0x7f.1` and
# `2130706433` are other ways to write an IPv4 address).
_HOST = re.compile(rf"(?:{_LABEL}\.)+(?!0[xX])(?!\d+\Z){_LABEL}\Z")

# Global to the registry, but not to a receiver of webhooks.
_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments, among them a cloud's metadata (192.0.0.192)
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # a cloud's host agent, from the public range
        "2001::/23",  # protocol assignments, among them Teredo: an IPv4 address inside
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
)
# Everything that was ever given out. Outside of it lie loopback, private and link-local addresses,
# multicast, and the forms with an IPv4 address inside (::ffff:0:0/96, ::/96, 64:ff9b::/96).
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")


def address_is_open(address: Address) -> bool:
    """Whether it is a machine of the open internet."""
    if any(address in net for net in _REFUSED if net.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST_6:
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def address_is_allowed(address: Address, *, loopback: bool) -> bool:
    """`loopback`: this machine itself may be called, for development."""
    return address_is_open(address) or (loopback and address.is_loopback)


def url_check(url: str, *, loopback: bool) -> None:
    """Refuse an address that could never be called. Raises ServiceError on `url`."""
    refusal = _refusal(url, loopback)
    if refusal is not None:
        raise ServiceError("url", *refusal)


def _refusal(url: str, loopback: bool) -> tuple[str, str | Promise] | None:
    if len(url) > URL_MAX_CHARS:
        return "too_long", _("The address is too long.")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "characters", _(
            "Only plain characters: write a name in another script as xn--…, and others as %XX."
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "malformed", _("This is not an address.")
    if parts.scheme != "https" and not (loopback and parts.scheme == "http"):
        return "scheme", _("The address must begin with https://.")
    if "@" in parts.netloc:
        return "user", _("No user name or password in the address: calls are signed.")
    if "#" in url:
        return "fragment", _("No fragment (#…) in the address.")
    literal = _literal(host)
    here = loopback and host == "localhost"
    if literal is None and not _HOST.match(host) and not here:
        return "malformed", _("This is not an address.")
    if literal is not None and not address_is_allowed(literal, loopback=loopback):
        return "private", _("This address does not belong to the open internet.")
    if parts.scheme == "http" and not here and not (literal and literal.is_loopback):
        return "scheme", _("The address must begin with https://.")
    if port is not None and port != HTTPS_PORT and port < FIRST_FREE_PORT:
        return "port", _("The port must be 443, or 1024 and above.")
    return None


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
