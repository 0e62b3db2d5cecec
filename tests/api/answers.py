"""What a door answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What came back. `json` is None where the body is empty."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def code(self) -> str:
        """The problem's code, after checking that it is a whole problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self.headers
        problem = self.json
        assert set(problem) - {"errors"} == {
            "type",
            "title",
            "status",
            "detail",
            "instance",
            "code",
        }
        assert problem["status"] == self.status
        assert problem["instance"] == self.headers["X-Request-ID"]
        return str(problem["code"])

    @property
    def pointers(self) -> list[tuple[str, str]]:
        """(pointer, code) of each error of a 422."""
        return [(error["pointer"], error["code"]) for error in self.json["errors"]]
