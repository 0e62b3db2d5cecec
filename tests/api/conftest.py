"""Fixtures of the API's stories: a door, an app, and people who come in through the door."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.cache import cache

from engine.lib import auth
from engine.models import ClientApp
from packets import selectors
from tests.api.doors import Door, Visitor, WebDoor, forget_packets
from tests.campaign import stage


@pytest.fixture
def door() -> Door:
    """The web; modules about the hot routes go through every door instead."""
    return WebDoor()


@pytest.fixture(autouse=True)
def _forget() -> None:
    """What a process remembers of another test's rows."""
    auth.key_ring.forget()
    forget_packets()
    selectors._luckiest_final.cache_clear()
    cache.clear()


@pytest.fixture
def app(transactional_db: None) -> ClientApp:
    return stage.make_app()


@pytest.fixture
def visit(door: Door, app: ClientApp) -> Callable[..., Visitor]:
    """`visit("alice")`: Alice, with a token of the app; claims of the token by keyword."""

    def make(user: str = "alice", of: ClientApp | None = None, **claims: object) -> Visitor:
        return Visitor(door, f"Bearer {stage.token(of or app, user, **claims)}")

    return make


@pytest.fixture
def server(door: Door, app: ClientApp) -> Callable[..., Visitor]:
    """`server("tokens")`: the app's back end with these scopes."""
    return lambda *scopes: Visitor(door, f"Api-Key {stage.api_key(app, *scopes)}")
