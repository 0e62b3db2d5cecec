"""The test database itself: the application's role, and clean tables after each test."""

from __future__ import annotations

import os
import threading

import psycopg
import pytest
import redis
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import connection


def _role() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        return str(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_every_connection_is_the_applications() -> None:
    found: list[str] = []

    def ask() -> None:
        found.append(_role())
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

    assert [_role(), *found] == ["laisee_app", "laisee_app"]


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.django_db(transaction=True)
def test_committed_rows_are_gone_and_seeded_rows_are_back(turn: int, redis_url: str) -> None:
    types = ContentType.objects.count()
    assert types > 0
    assert not Group.objects.filter(name="Alice's friends").exists()
    with redis.Redis.from_url(redis_url) as link:
        assert link.get("portion") is None
        link.set("portion", turn)
    Group.objects.create(name="Alice's friends")
    ContentType.objects.first().delete()  # type: ignore[union-attr]
    assert ContentType.objects.count() == types - 1


def test_the_addresses_lead_to_the_test_database(app_dsn: str, owner_dsn: str) -> None:
    for dsn, role in ((app_dsn, "laisee_app"), (owner_dsn, "laisee_owner")):
        with psycopg.connect(dsn) as link:
            assert link.execute("SELECT current_user, current_database()").fetchone() == (
                role,
                "test_laisee",
            )
    assert os.environ["DATABASE_URL"] == app_dsn
    assert os.environ["MIGRATION_DATABASE_URL"] == owner_dsn
