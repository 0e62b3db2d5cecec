"""What is written about the API is what the code does."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from drf_spectacular.generators import SchemaGenerator

from engine.lib.problem import CODES
from engine.run.paths import CHECKOUT
from packets.api import schemas
from packets.claiming.effects import Reason, Result


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    made: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return made


def test_the_committed_document_is_that_of_the_code(document: dict[str, Any]) -> None:
    committed = yaml.safe_load((CHECKOUT / "docs" / "openapi.yaml").read_text())
    assert committed == yaml.safe_load(yaml.safe_dump(_plain(document)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def test_every_result_reason_status_and_state_is_enumerated(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    for enumeration in (
        Result,
        Reason,
        schemas.ClaimStatus,
        schemas.PacketState,
        schemas.Kind,
        schemas.TransferKind,
    ):
        assert sorted(components[enumeration.__name__]["enum"]) == sorted(map(str, enumeration))


def test_bodies_take_no_unknown_members(document: dict[str, Any]) -> None:
    bodies = [
        document["components"]["schemas"][ref.rsplit("/", 1)[1]]
        for path in document["paths"].values()
        for operation in path.values()
        if "requestBody" in operation
        for ref in [operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]]
    ]
    assert len(bodies) >= 7  # each room adds its own
    assert all(body["additionalProperties"] is False for body in bodies)


def test_the_page_names_everything() -> None:
    page = (CHECKOUT / "docs" / "api.md").read_text()
    for word in [*Result, *Reason, *CODES, *schemas.ClaimStatus, *schemas.PacketState]:
        assert f"`{word}`" in page, word
