"""Bodies: strict UTF-8, strict JSON, whole numbers, bounds, and pointers to what is wrong."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from engine.lib.problem import ProblemError
from engine.lib.renderers import (
    MAX_DEPTH,
    MAX_EVENTS_BODY_BYTES,
    OrjsonParser,
    OrjsonRenderer,
    decode_object,
)
from engine.lib.schema import refusal, to_struct
from tests.engine.test_problem import problem
from tests.engine.views import Line, Order

pytestmark = pytest.mark.urls("tests.engine.views")


def refused(raw: bytes, limit: int = 16384) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        decode_object(raw, limit)
    return caught.value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": 01}',
        b'{"a": 1,}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',  # half a surrogate pair, encoded as if it were a character
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "\x00"}',
        b"{} {}",
        b'{"a": "\\x41"}',
    ],
)
def test_malformed_is_400(raw: bytes) -> None:
    problem = refused(raw)
    assert (problem.status, problem.code) == (400, "malformed")


@pytest.mark.parametrize(
    ("raw", "pointer", "code"),
    [
        (b"[]", "", "wrong_type"),
        (b'"a"', "", "wrong_type"),
        (b"null", "", "wrong_type"),
        (b'{"a": 1, "a": 2}', "/a", "duplicate_field"),
        (b'{"a": [{"b~/": 1, "b~/": 2}]}', "/a/0/b~0~1", "duplicate_field"),
        (b'{"a": 9007199254740992}', "/a", "out_of_range"),
        (b'{"a": -9007199254740992}', "/a", "out_of_range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "/a", "out_of_range"),
        (b'{"a": 1e999}', "/a", "out_of_range"),
        (b'{"a": "x\\u0000"}', "/a", "forbidden_character"),
        (b'{"a": ["\\ud800"]}', "/a/0", "forbidden_character"),
        (b'{"\\udfff": 1}', "", "forbidden_character"),
    ],
)
def test_well_formed_but_never_meant_is_422(raw: bytes, pointer: str, code: str) -> None:
    problem = refused(raw)
    assert problem.status == 422
    assert [(error.pointer, error.code) for error in problem.errors] == [(pointer, code)]


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 8000])
def test_deep_nesting_is_refused_and_survived(levels: int) -> None:
    problem = refused(b'{"a":' + b"[" * levels + b"]" * levels + b"}", 10**6)
    assert problem.status == 422
    assert {error.code for error in problem.errors} == {"too_deep"}


def test_the_largest_integer_passes_exactly() -> None:
    assert decode_object(b'{"a": 9007199254740991, "b": -9007199254740991}') == {
        "a": 2**53 - 1,
        "b": -(2**53) + 1,
    }


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert decode_object(b'{"a": "\\ud83e\\udde7"}') == {"a": "🧧"}


def test_size_is_counted_in_bytes() -> None:
    assert decode_object(b'{"a":"' + b"x" * 8 + b'"}', 16) == {"a": "x" * 8}
    assert refused(b'{"a":"' + b"x" * 9 + b'"}', 16).status == 413


def test_many_names_twice_cost_little_and_answer_briefly() -> None:
    names = b",".join(b'"k%d":1' % (i % 5000) for i in range(10_000))
    problem = refused(b"{" + names + b"}", 10**6)
    assert problem.status == 422
    assert len(problem.errors) <= 20


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_problem(raw: bytes) -> None:
    try:
        assert isinstance(decode_object(raw), dict)
    except ProblemError as problem:
        assert problem.status in (400, 422)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
        st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans() | st.none(),
        max_size=5,
    )
)
def test_what_is_meant_comes_through_unchanged(value: dict[str, Any]) -> None:
    assert decode_object(orjson.dumps(value)) == value


@pytest.mark.parametrize(
    ("data", "pointer", "code"),
    [
        ({}, "/amount_fen", "required"),
        ({"amount_fen": 1, "extra": 1}, "/extra", "unknown_field"),
        ({"amount_fen": 1, "a`/~": 1}, "/a`~1~0", "unknown_field"),
        ({"amount_fen": 1.0}, "/amount_fen", "wrong_type"),
        ({"amount_fen": True}, "/amount_fen", "wrong_type"),
        ({"amount_fen": "1"}, "/amount_fen", "wrong_type"),
        ({"amount_fen": None}, "/amount_fen", "wrong_type"),
        ({"amount_fen": 0}, "/amount_fen", "out_of_range"),
        ({"amount_fen": -5}, "/amount_fen", "out_of_range"),
        ({"amount_fen": 1001}, "/amount_fen", "out_of_range"),
        ({"amount_fen": 1, "name": ""}, "/name", "wrong_length"),
        ({"amount_fen": 1, "name": "123456789"}, "/name", "wrong_length"),
        ({"amount_fen": 1, "lines": [{"quantity": 1}, {}]}, "/lines/1/quantity", "required"),
        ({"amount_fen": 1, "lines": [{"quantity": 1, "x": 1}]}, "/lines/0/x", "unknown_field"),
        ({"amount_fen": 1, "lines": [5]}, "/lines/0", "wrong_type"),
    ],
)
def test_each_wrong_member_is_pointed_at(data: dict[str, Any], pointer: str, code: str) -> None:
    with pytest.raises(ProblemError) as caught:
        to_struct(data, Order)
    (error,) = caught.value.errors
    assert (error.pointer, error.code) == (pointer, code)
    assert error.detail.endswith(".")


def test_other_messages_have_codes_too() -> None:
    assert refusal("Invalid enum value 'x' - at `$.kind`").errors[0].code == "unknown_choice"
    assert refusal("Expected `str` matching regex '^a' - at `$.k`").errors[0].code == "wrong_format"
    assert refusal("Something new").errors[0].code == "invalid"


def test_over_http(client: Client) -> None:
    def post(raw: bytes) -> Any:
        return client.post("/api/v1/orders", raw, "application/json")

    assert post(b'{"amount_fen": 5}').json() == {"amount_fen": 5}
    problem(post(b'{"amount_fen": "\xff"}'), 400, "malformed")
    problem(post(b'{"amount_fen": 5, "name": "' + b"x" * 16384 + b'"}'), 413, "too_large")
    problem(post(b'{"amount_fen": "' + b"x" * 2_000_000 + b'"}'), 413, "too_large")
    body = problem(post(b'{"amount_fen": 0.5}'), 422, "invalid")
    assert body["errors"] == [
        {"pointer": "/amount_fen", "code": "wrong_type", "detail": "Expected `int`, got `float`."}
    ]
    # No body at all is an empty object: routes whose members are all optional need none.
    assert (
        problem(client.generic("POST", "/api/v1/orders"), 422, "invalid")["errors"][0]["pointer"]
        == "/amount_fen"
    )


def test_a_view_may_take_more() -> None:
    class Events:
        max_body_bytes = MAX_EVENTS_BODY_BYTES

    body = b'{"a": "' + b"x" * 500_000 + b'"}'
    parse = OrjsonParser().parse
    assert len(parse(io.BytesIO(body), parser_context={"view": Events()})["a"]) == 500_000
    for context in ({"view": object()}, None):
        with pytest.raises(ProblemError) as caught:
            parse(io.BytesIO(body), parser_context=context)
        assert caught.value.status == 413


def test_the_renderer_keeps_integers_whole_and_knows_structs() -> None:
    render = OrjsonRenderer().render
    assert render({"a": 2**53 + 1, "b": [Line(quantity=3)]}) == (
        b'{"a":9007199254740993,"b":[{"quantity":3}]}'
    )
    assert render(Line(quantity=1)) == b'{"quantity":1}'
    assert render(None) == b""
