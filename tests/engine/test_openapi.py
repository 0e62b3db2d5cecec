"""The OpenAPI document promises what the code does: exact bodies, every code, both doors' keys."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from engine.lib.openapi import problems
from engine.lib.problem import CODES, CONTENT_TYPE, Code


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    made: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return made


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_it_is_valid_and_of_the_promised_version(document: dict[str, Any]) -> None:
    validate_schema(document)
    assert document["openapi"] == "3.1.0"


def test_every_code_is_listed(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["Problem"]["properties"]["code"]["enum"] == [str(code) for code in Code]
    for code, meaning in CODES.items():
        assert (
            f"`{code}` ({meaning.status})"
            in schemas["Problem"]["properties"]["code"]["description"]
        )


def test_every_operation_lists_its_problems(document: dict[str, Any]) -> None:
    assert operations(document)
    for path, method, operation in operations(document):
        responses = operation["responses"]
        where = f"{method} {path}"
        assert {"400", "406", "500", "503"} <= set(responses), where
        if operation.get("security"):
            assert "401" in responses, where
        if "{" in path:
            assert "404" in responses, where
        for status, response in responses.items():
            if (
                not status.startswith("2")
                and status != "304"
                and "application/json" not in response.get("content", {})
            ):
                (reference, codes) = response["content"][CONTENT_TYPE]["schema"]["allOf"]
                assert reference == {"$ref": "#/components/schemas/Problem"}, where
                assert codes["properties"]["code"]["enum"], where
                for code in codes["properties"]["code"]["enum"]:
                    assert CODES[Code(code)].status == int(status), where


def test_request_bodies_are_exact(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    bodies = [
        (path, operation["requestBody"])
        for path, _, operation in operations(document)
        if "requestBody" in operation
    ]
    assert bodies
    for path, body in bodies:
        assert set(body["content"]) == {"application/json"}, path
        name = body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert schemas[name]["additionalProperties"] is False, path
        assert body["required"] == bool(schemas[name].get("required")), path


def test_both_schemes_and_nothing_of_the_documents_own_views(document: dict[str, Any]) -> None:
    assert set(document["components"]["securitySchemes"]) == {"ClientToken", "ApiKey"}
    assert not [path for path in document["paths"] if not path.startswith("/api/v1/")]


def test_problems_are_grouped_by_status() -> None:
    made = problems(Code.CONFLICT, "key_spent", Code.INVALID)
    assert set(made) == {(409, CONTENT_TYPE), (422, CONTENT_TYPE)}
    assert made[(409, CONTENT_TYPE)].response["allOf"][1]["properties"]["code"]["enum"] == [
        "conflict",
        "key_spent",
    ]


def test_the_document_and_its_page_come_from_here(client: Client) -> None:
    schema = client.get("/api/schema")
    assert schema.status_code == 200
    assert b"openapi: 3.1.0" in schema.content
    page = client.get("/api/docs")
    assert page.status_code == 200
    text = page.content.decode()
    assert "/static/drf_spectacular_sidecar/swagger-ui-dist/" in text
    # Offline: nothing is fetched from anywhere else.
    assert "https://" not in text
    assert "//cdn" not in text
