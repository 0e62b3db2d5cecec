"""Which addresses a campaign may send people to: https, and a host of its own list.

An address is judged as a browser reads it, when it is written down and whenever it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

URL_MAX_CHARS = 300
HOST_MAX_CHARS = 120
# What browsers drop, turn into a slash, or read as the end of a host. No host of ours has them.
_NEVER = re.compile(r"[\x00-\x20\x7f-\uffff\\]|[^\x00-\uffff]")
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*\Z")


def is_host(text: str) -> bool:
    """A plain host name as it stands in the list: ASCII (punycode for others), no port."""
    return len(text) <= HOST_MAX_CHARS and bool(_HOST.match(text))


def host_of(url: str) -> str:
    """The host of an https address that a browser reads as we do; empty where it isn't one."""
    if len(url) > URL_MAX_CHARS or _NEVER.search(url) or not url.startswith("https://"):
        return ""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if "@" in parts.netloc or port not in (None, 443) or "%" in parts.netloc:
        return ""
    host = parts.hostname or ""
    return host if is_host(host) else ""


def allowed(url: str, hosts: Sequence[str]) -> bool:
    """Whether this is an https address of one of exactly these hosts."""
    host = host_of(url)
    return bool(host) and host in hosts
