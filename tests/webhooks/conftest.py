"""Receivers of the tests live on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engine.webhooks import calling
from tests.webhooks.stage import Receiver, receiving


@pytest.fixture(autouse=True)
def _loopback_may_be_called(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_LOOPBACK = True
    settings.REQUIRE_SECOND_FACTOR = False


@pytest.fixture(autouse=True)
def _a_busy_machine_is_no_slow_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that a test holds open must not run into the limits; these have tests of their own."""
    monkeypatch.setattr(calling, "READ_S", 60.0)
    monkeypatch.setattr(calling, "CALL_S", 60.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found
