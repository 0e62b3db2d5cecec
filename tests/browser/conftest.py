"""One browser for all stories, one private copy of Laisee, and the demo's members of staff."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser import chromium
from tests.browser.hand import Hand
from tests.private_copy import Copy


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    why = chromium.missing()
    if why:
        pytest.skip(why)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium.executable(), args=list(chromium.FLAGS)
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def demo(laisee: Copy) -> dict[str, Any]:
    """What `seed_demo` prints: the campaign, its keys, and the staff with their second factors."""
    seeded: dict[str, Any] = json.loads(laisee.manage("seed_demo"))
    return seeded


@pytest.fixture
def person(browser: Browser, laisee: Copy) -> Iterator[Callable[..., Hand]]:
    """Opens a window of somebody's own; every window is looked through at the end."""
    hands: list[Hand] = []

    def open_window(language: str, who: str = "") -> Hand:
        hands.append(Hand(browser, laisee.base_url, language, who))
        return hands[-1]

    yield open_window
    for hand in hands:
        hand.close()
