"""Where the button of a share page leads: into the campaign's own list of hosts, never elsewhere.

The address is the campaign's, never the query's.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit, urlunsplit

from campaign.destinations import allowed

CLICK_PARAMETER = "click"


def with_click(url: str, hosts: Sequence[str], token: str) -> str:
    """The address with the click token in its query; empty where it isn't allowed."""
    if not allowed(url, hosts):
        return ""
    if not token:
        return url
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, urlencode({CLICK_PARAMETER: token}))))
    return urlunsplit(parts._replace(query=query))
