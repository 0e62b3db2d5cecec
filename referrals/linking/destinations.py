"""Where the button of a share page leads: into the campaign's own list of hosts, never elsewhere.

The address is the campaign's, never the query's. It is judged as a browser reads it, whenever it is
shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit, urlunsplit

URL_MAX_CHARS = 300
CLICK_PARAMETER = "click"
# What browsers drop, turn into a slash, or read as the end of a host. No host of ours has them.
_NEVER = re.compile(r"[\x00-\x20\x7f-\uffff\\]|[^\x00-\uffff]")
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*\Z")


def is_host(text: str) -> bool:
    """A plain host name as it stands in the list: ASCII (punycode for others), no port."""
    return len(text) <= 120 and bool(_HOST.match(text))


def allowed(url: str, hosts: Sequence[str]) -> bool:
    """Whether this is an https address of one of exactly these hosts."""
    if len(url) > URL_MAX_CHARS or _NEVER.search(url) or not url.startswith("https://"):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if "@" in parts.netloc or port not in (None, 443) or "%" in parts.netloc:
        return False
    host = parts.hostname or ""
    return is_host(host) and host in hosts


def with_click(url: str, hosts: Sequence[str], token: str) -> str:
    """The address with the click token in its query; empty where it isn't allowed."""
    if not allowed(url, hosts):
        return ""
    if not token:
        return url
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, urlencode({CLICK_PARAMETER: token}))))
    return urlunsplit(parts._replace(query=query))
