"""Receivers of the tests live on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.webhooks.stage import Receiver, receiving


@pytest.fixture(autouse=True)
def _loopback_may_be_called(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_LOOPBACK = True
    settings.REQUIRE_SECOND_FACTOR = False


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found
