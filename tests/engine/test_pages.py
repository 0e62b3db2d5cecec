"""Lists by cursor: complete, in order, stable while rows are added, strict about their input."""

from __future__ import annotations

import datetime as dt
import uuid
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

from engine.lib.pages import _after, _pack, _unpack
from engine.models import ClientApp
from tests.engine.test_problem import problem

pytestmark = [pytest.mark.urls("tests.engine.views"), pytest.mark.django_db]


def apps(count: int, prefix: str = "app") -> list[str]:
    """`count` apps, in the order in which the list shows them."""
    slugs = [f"{prefix}-{number:03d}" for number in range(count)]
    ClientApp.objects.bulk_create(ClientApp(slug=slug, name=slug) for slug in slugs)
    return slugs[::-1]


def walk(client: Client, url: str, between: Any = None) -> list[list[str]]:
    pages = []
    while url:
        body = client.get(url).json()
        assert set(body) == {"results", "next"}
        pages.append(body["results"])
        url = body["next"]
        if between is not None:
            between(len(pages))
    return pages


def test_all_pages_in_order(client: Client) -> None:
    slugs = apps(45)
    pages = walk(client, "/api/v1/apps")
    assert [len(page) for page in pages] == [20, 20, 5]
    assert list(chain.from_iterable(pages)) == slugs
    assert list(chain.from_iterable(walk(client, "/api/v1/apps?limit=7"))) == slugs


@pytest.mark.parametrize("count", [0, 1, 20, 40])
def test_the_last_page_has_no_next(client: Client, count: int) -> None:
    slugs = apps(count)
    pages = walk(client, "/api/v1/apps")
    assert list(chain.from_iterable(pages)) == slugs
    assert len(pages) == max(1, count // 20)


def test_rows_added_meanwhile_neither_repeat_nor_hide_others(client: Client) -> None:
    slugs = apps(30)
    added: list[str] = []

    def between(page: int) -> None:
        added.extend(apps(1, f"zzz-{page}"))  # before the cursor: a newer row

    assert list(chain.from_iterable(walk(client, "/api/v1/apps?limit=10", between))) == slugs
    assert len(added) == 3


def test_next_keeps_the_limit_and_is_absolute(client: Client) -> None:
    apps(3)
    following = urlsplit(client.get("/api/v1/apps?limit=2").json()["next"])
    assert (following.scheme, following.netloc, following.path) == (
        "http",
        "testserver",
        "/api/v1/apps",
    )
    assert parse_qs(following.query)["limit"] == ["2"]


def test_a_page_is_one_query_and_counts_nothing(
    client: Client, django_assert_num_queries: Any
) -> None:
    apps(30)
    with django_assert_num_queries(1) as captured:
        client.get("/api/v1/apps")
    assert "COUNT" not in captured[0]["sql"].upper()
    assert "OFFSET" not in captured[0]["sql"].upper()


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "1.5", "²", "99999", "1e1", "+5"])
def test_bad_limits(client: Client, limit: str) -> None:
    body = problem(client.get("/api/v1/apps", {"limit": limit}), 422, "invalid")
    assert body["errors"][0]["pointer"] == "?limit"
    assert body["errors"][0]["code"] == "out_of_range"


def test_bad_cursors(client: Client) -> None:
    apps(3)
    good = parse_qs(urlsplit(client.get("/api/v1/apps?limit=1").json()["next"]).query)["cursor"][0]
    assert client.get("/api/v1/apps", {"cursor": good}).status_code == 200
    for cursor in ("", "x", good[:-1], good + "x", "a" * 5000, "\0", "é", ":".join("abc")):
        body = problem(client.get("/api/v1/apps", {"cursor": cursor}), 422, "invalid")
        assert body["errors"][0]["pointer"] == "?cursor"


def test_values_survive_the_cursor() -> None:
    for value in (
        5,
        2**53,
        "x",
        uuid.uuid4(),
        dt.datetime(2027, 2, 5, 12, 0, 0, 123456, tzinfo=dt.UTC),
    ):
        assert _unpack(_pack(value)) == value
    with pytest.raises(TypeError):
        _pack(1.5)


def test_two_keys_in_two_directions() -> None:
    condition = str(_after(["-name", "id"], ["b", 3]))
    assert condition == "(OR: ('name__lt', 'b'), (AND: ('id__gt', 3), ('name', 'b')))"
