"""A few people with phones: they claim over HTTP while staff press buttons."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt

from tests.private_copy import Copy

TOKEN_TTL_S = 300
# Connections opened one after the other reach every process behind a door: the kernel hands them
# to whichever is waiting. Far more than there are processes (two and one).
KNOCKS = {"web": 24, "edge": 6}
_numbers = itertools.count(1)


@dataclass
class Crowd:
    """`claim` for one person; `everywhere` until every process of both doors has answered."""

    copy: Copy
    kid: str
    secret: str
    app: int | None = None

    def _token(self, who: str) -> str:
        now = int(time.time())
        claims = {"sub": who, "aud": "laisee", "exp": now + TOKEN_TTL_S}
        return jwt.encode(claims, self.secret, algorithm="HS256", headers={"kid": self.kid})

    def claim(self, packet: str, who: str = "", door: str = "web") -> dict[str, Any]:
        """One claim over a connection of its own; the parsed answer."""
        who = who or f"guest-{next(_numbers)}"
        address = urlsplit(self.copy.edge_url if door == "edge" else self.copy.base_url)
        link = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
        try:
            link.request(
                "POST",
                f"/api/v1/packets/{packet}/claims",
                body=b"{}",
                headers={
                    "Authorization": f"Bearer {self._token(who)}",
                    "Content-Type": "application/json",
                },
            )
            answer = link.getresponse()
            parsed: dict[str, Any] = json.loads(answer.read())
            assert answer.status == 200, parsed
            return parsed
        finally:
            link.close()

    def everywhere(self, packet: str) -> dict[str, set[str]]:
        """The results of one claim after the other by new people, at each door."""
        return {
            door: {self.claim(packet, door=door)["result"] for _knock in range(knocks)}
            for door, knocks in KNOCKS.items()
        }

    def win(self, packet: str, people: int, door: str = "web") -> int:
        """So many new people win; the sum of their portions in fen."""
        total_fen = 0
        for _person in range(people):
            answer = self.claim(packet, door=door)
            assert answer["result"] == "won", answer
            total_fen += int(answer["claim"]["amount_fen"])
        return total_fen
