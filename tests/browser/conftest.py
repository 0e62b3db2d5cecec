"""One browser for all stories, one private copy of Laisee, and the demo's members of staff."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser import chromium
from tests.browser.hand import Hand
from tests.private_copy import Copy

# Fields for dates follow the browser's own language, not the page's.
LOCALES = {"zh-hans": "zh-CN", "en": "en-US"}


# Closed before tests of another folder run: they may want a loop of their own in this thread.
@pytest.fixture(scope="package")
def browsers() -> Iterator[dict[str, Browser]]:
    """A Chinese and an English browser."""
    why = chromium.missing()
    if why:
        pytest.skip(why)
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright keeps a loop in this thread; what a story looks up between two of its calls is
        # no part of that loop, though Django takes it for one.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        started = {
            language: playwright.chromium.launch(
                executable_path=chromium.executable(),
                args=[*chromium.FLAGS, f"--lang={locale}"],
                env={**os.environ, "LANGUAGE": locale.replace("-", "_")},
            )
            for language, locale in LOCALES.items()
        }
        yield started
        for browser in started.values():
            browser.close()


@pytest.fixture(scope="package")
def laisee(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """One copy for all stories of a test process."""
    with Copy.running(tmp_path_factory.mktemp("copy")) as copy:
        yield copy


@pytest.fixture(scope="package")
def demo(laisee: Copy) -> dict[str, Any]:
    """What `seed_demo` prints: the campaign, its keys, and the staff with their second factors."""
    seeded: dict[str, Any] = json.loads(laisee.manage("seed_demo"))
    return seeded


@pytest.fixture
def person(browsers: dict[str, Browser], laisee: Copy) -> Iterator[Callable[..., Hand]]:
    """Opens a window of somebody's own; every window is looked through at the end."""
    hands: list[Hand] = []

    def open_window(language: str, who: str = "") -> Hand:
        hands.append(Hand(browsers[language], laisee.base_url, language, who))
        return hands[-1]

    yield open_window
    for hand in hands:
        hand.close()
