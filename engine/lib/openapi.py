"""The OpenAPI document: structs as components, both ways to authenticate, and every problem code.

A view says `@extend_schema(request=ClaimBody, responses={200: ClaimAnswer, **problems(...)})`.
What can happen on any route (wrong address, wrong method, a defect, an outage) is added to all of
them here, so that the views list only their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.plumbing import ResolvedComponent

from engine.lib.problem import CODES, CONTENT_TYPE, TYPE_PREFIX, Code, FieldCode
from engine.lib.renderers import MEDIA_TYPE

REF = "#/components/schemas/{name}"
# Every operation can end like this, whatever its view does.
EVERYWHERE = (Code.NOT_ACCEPTABLE, Code.INTERNAL, Code.UNAVAILABLE, Code.BAD_REQUEST)
WITH_CREDENTIALS = (Code.NOT_AUTHENTICATED,)
WITH_BODY = (Code.MALFORMED, Code.TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE, Code.INVALID)
OF_SCHEME = {"ClientToken": (Code.INVALID_TOKEN,), "ApiKey": (Code.INVALID_API_KEY,)}


class StructExtension(OpenApiSerializerExtension):
    """msgspec structs take the place of serializers."""

    target_class = "msgspec.Struct"
    match_subclasses = True

    def get_name(self, auto_schema: Any, direction: Any) -> str:
        return str(self.target.__name__)

    def map_serializer(self, auto_schema: Any, direction: Any) -> Any:
        (_,), parts = msgspec.json.schema_components([self.target], ref_template=REF)
        own = parts.pop(self.target.__name__)
        for name, schema in parts.items():
            auto_schema.registry.register_on_missing(
                ResolvedComponent(
                    name=name, type=ResolvedComponent.SCHEMA, object=name, schema=schema
                )
            )
        return own


class ClientTokenScheme(OpenApiAuthenticationExtension):
    target_class = "engine.lib.auth.ClientTokenAuthentication"
    name = "ClientToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": (
                "A participant. HS256 or EdDSA by a key of the client app (`kid`); claims `sub`, "
                "`aud: laisee`, `exp` (at most 15 minutes ahead), optional `dev`, `grp`, `new`, "
                "`acct`."
            ),
        }


class ApiKeyScheme(OpenApiAuthenticationExtension):
    target_class = "engine.lib.auth.ApiKeyAuthentication"
    name = "ApiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "A client app's back end: `Api-Key <key>`, with scopes.",
        }


def _codes_schema(codes: Iterable[Code]) -> dict[str, Any]:
    named = sorted(set(codes), key=list(Code).index)
    return {
        "description": "; ".join(f"`{code}`: {CODES[code].text}" for code in named),
        "schema": {
            "allOf": [
                {"$ref": REF.format(name="Problem")},
                {"type": "object", "properties": {"code": {"enum": [str(code) for code in named]}}},
            ]
        },
    }


def problems(*codes: Code | str) -> dict[tuple[int, str], Any]:
    """For `responses=`: the problems that this route adds to those that every route has."""
    from drf_spectacular.utils import OpenApiResponse

    answers: dict[tuple[int, str], Any] = {}
    for status, group in _by_status(Code(code) for code in codes).items():
        made = _codes_schema(group)
        answers[(status, CONTENT_TYPE)] = OpenApiResponse(made["schema"], made["description"])
    return answers


def _by_status(codes: Iterable[Code]) -> dict[int, list[Code]]:
    groups: dict[int, list[Code]] = {}
    for code in codes:
        groups.setdefault(CODES[code].status, []).append(code)
    return groups


def problem_component() -> dict[str, Any]:
    """The schema of every problem (RFC 9457)."""
    text = {"type": "string"}
    return {
        "type": "object",
        "description": "Problem details (RFC 9457).",
        "properties": {
            "type": {"enum": [TYPE_PREFIX + code for code in Code]},
            "title": text,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": text,
            "instance": {**text, "description": "The request id."},
            "code": {
                "enum": [str(code) for code in Code],
                "description": "\n".join(
                    f"- `{code}` ({meaning.status}): {meaning.text}"
                    for code, meaning in CODES.items()
                ),
            },
            "errors": {"type": "array", "items": {"$ref": REF.format(name="ProblemField")}},
        },
        "required": ["type", "title", "status", "detail", "instance", "code"],
    }


def problem_field_component() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "pointer": {
                **text,
                "description": "JSON pointer into the body, or `?name` of a query parameter.",
            },
            "code": {
                **text,
                "description": "What is wrong; of the kernel: "
                + ", ".join(f"`{code}`" for code in FieldCode)
                + ". Services add their own.",
            },
            "detail": text,
        },
        "required": ["pointer", "code", "detail"],
    }


def only_ours(endpoints: list[Any], **_options: Any) -> list[Any]:
    """Preprocessing hook: the document describes the API, not the document's own views."""
    return [entry for entry in endpoints if not entry[0].startswith(("/api/schema", "/api/docs"))]


def finish(result: dict[str, Any], **_options: Any) -> dict[str, Any]:
    """Postprocessing hook: components of problems, and what every operation can answer."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = problem_component()
    schemas["ProblemField"] = problem_field_component()
    for path, operations in result.get("paths", {}).items():
        for operation in operations.values():
            if isinstance(operation, dict) and "responses" in operation:
                _finish_operation(path, operation, schemas)
    result["components"]["schemas"] = dict(sorted(schemas.items()))
    return result


def _finish_operation(path: str, operation: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    codes: set[Code] = set(EVERYWHERE)
    for requirement in operation.get("security") or []:
        for scheme in requirement:
            codes |= {*WITH_CREDENTIALS, *OF_SCHEME.get(scheme, ())}
    if "requestBody" in operation:
        codes |= set(WITH_BODY)
        _finish_body(operation["requestBody"], schemas)
    if any(parameter["in"] == "query" for parameter in operation.get("parameters", [])):
        codes.add(Code.INVALID)
    if "{" in path:
        codes.add(Code.NOT_FOUND)
    responses: dict[str, Any] = operation["responses"]
    for status, group in _by_status(codes).items():
        own = responses.setdefault(str(status), {})
        said = _said_codes(own)
        made = _codes_schema({*group, *said})
        content: Mapping[str, Any] = own.get("content", {})
        responses[str(status)] = {
            "description": made["description"],
            "content": {**content, CONTENT_TYPE: {"schema": made["schema"]}},
            **({"headers": own["headers"]} if "headers" in own else {}),
        }
    operation["responses"] = dict(sorted(responses.items()))


def _finish_body(body: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """A body is JSON only; it may be left out exactly where nothing in it is required."""
    schema = body["content"][MEDIA_TYPE]["schema"]
    body["content"] = {MEDIA_TYPE: {"schema": schema}}
    named = schemas.get(str(schema.get("$ref", "")).rsplit("/", 1)[-1], schema)
    body["required"] = bool(named.get("required"))


def _said_codes(response: Mapping[str, Any]) -> list[Code]:
    schema = response.get("content", {}).get(CONTENT_TYPE, {}).get("schema", {})
    parts = schema.get("allOf", [])
    return [
        Code(code)
        for part in parts
        for code in part.get("properties", {}).get("code", {}).get("enum", [])
    ]
