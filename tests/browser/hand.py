"""A person at the admin: one browser window in one language, whose interactions are counted.

An interaction is what a hand does: a click, a field that is filled in, a choice, a key. Opening the
first address is none. Whatever goes wrong behind the person's back fails the test at the end: an
error in the page's scripts, a failed request, or one to another server.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.utils import translation
from django_otp.oath import TOTP
from playwright.sync_api import Browser, Locator, Page, Response, expect

# Milliseconds; two busy cores render a page with charts in well under one second.
PATIENCE_MS = 15_000
TOTP_STEP_S = 30
WINDOW = {"width": 1360, "height": 850}
TALLEST = 1_700
SETTLE_MS = 400  # charts follow a new size with a short animation
# A folder to keep pictures in; empty: none are taken. `make pictures` keeps the docs' own few.
PICTURES = os.environ.get("LAISEE_PICTURES", "")
PICTURES_ONLY = os.environ.get("LAISEE_PICTURES_ONLY", "").split()
# Read quickly and kept in the repository.
PICTURE_MAX_BYTES = 200_000

# One code is good once: the last step that each second factor has given, by its secret.
_used_steps: dict[str, int] = {}


def one_time_code(secret_base32: str) -> str:
    """The next code of this second factor that nobody has used yet."""
    key = base64.b32decode(secret_base32 + "=" * (-len(secret_base32) % 8))
    while True:
        step = int(time.time()) // TOTP_STEP_S
        last = _used_steps.get(secret_base32, 0)
        # The server takes the neighbouring step too, so two log-ins can follow at once.
        wanted = step if step > last else last + 1
        if wanted <= step + 1:
            _used_steps[secret_base32] = wanted
            totp = TOTP(key, step=TOTP_STEP_S)
            totp.time = wanted * TOTP_STEP_S
            return f"{totp.token():06d}"
        time.sleep(0.2)


class Hand:
    """`say` gives a text as this person reads it; `click`, `fill`, `choose` count."""

    def __init__(self, browser: Browser, base_url: str, language: str, who: str = "") -> None:
        self.language, self.base_url, self.who = language, base_url, who
        self.interactions = 0
        self.troubles: list[str] = []
        self.context = browser.new_context(
            base_url=base_url,
            locale="zh-CN" if language == "zh-hans" else "en-US",
            timezone_id="Asia/Shanghai",
            viewport=WINDOW,  # type: ignore[arg-type]
            reduced_motion="reduce",
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.troubles.append(f"script: {error}"))
        self.page.on("response", self._look)
        self.page.on(
            "request",
            lambda request: self._local(request.url),
        )

    def _local(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws") and not url.startswith(self.base_url):
            self.troubles.append(f"asks another server: {url}")

    def _look(self, response: Response) -> None:
        if response.status >= 500 or (response.status == 404 and "/static/" in response.url):
            self.troubles.append(f"{response.status} {response.url}")

    def close(self) -> None:
        self.context.close()
        if self.troubles:
            pytest.fail(f"behind {self.who}'s back: " + "; ".join(dict.fromkeys(self.troubles)))

    # --- what a person does -------------------------------------------------------------------

    def say(self, text: str, **values: object) -> str:
        """The text in this person's language."""
        with translation.override(self.language):
            return translation.gettext(text) % values if values else translation.gettext(text)

    def open(self, path: str) -> None:
        response = self.page.goto(path)
        assert response is not None and response.status < 400, f"{path}: {response}"

    def click(self, target: Locator) -> None:
        self.interactions += 1
        target.click()

    def fill(self, target: Locator, text: str) -> None:
        self.interactions += 1
        target.fill(text)

    def choose(self, target: Locator, value: str) -> None:
        self.interactions += 1
        target.select_option(value)

    def button(self, text: str) -> Locator:
        return self.page.get_by_role("button", name=self.say(text), exact=True)

    def link(self, text: str) -> Locator:
        return self.page.get_by_role("link", name=self.say(text), exact=True)

    def sees(self, text: str) -> None:
        expect(self.page.locator("body")).to_contain_text(text, timeout=PATIENCE_MS)

    def log_in(self, username: str, password: str, totp_secret: str = "") -> None:
        """From the log-in page to the first page, with the second factor where there is one."""
        self.open("/admin/login/")
        self.fill(self.page.locator("input[name=username]"), username)
        self.fill(self.page.locator("input[name=password]"), password)
        code = self.page.locator("input[name=code]")
        if totp_secret and code.count():
            self.fill(code, one_time_code(totp_secret))
        self.click(self.page.locator("#login-form button[type=submit]"))
        expect(self.page).not_to_have_url(re.compile(r"/login/"))

    # --- pictures -----------------------------------------------------------------------------

    def picture(
        self,
        name: str,
        target: Locator | None = None,
        *,
        whole: bool = False,
        wait: Callable[[], object] | None = None,
    ) -> None:
        """Keep this moment as `<name>.<language>.png`, if pictures are being taken."""
        if not PICTURES or (PICTURES_ONLY and name not in PICTURES_ONLY):
            return
        if wait is not None:
            wait()
        self.page.wait_for_load_state("networkidle")
        self.page.evaluate("document.fonts.ready")
        path = Path(PICTURES) / f"{name}.{'zh' if self.language == 'zh-hans' else 'en'}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if target is not None:
            target.screenshot(path=path, animations="disabled")
        else:
            if whole:
                # A taller window, not a longer picture: what sticks to its edges stays there.
                height = self.page.evaluate("document.documentElement.scrollHeight")
                self.page.set_viewport_size({**WINDOW, "height": min(height, TALLEST)})
                self.page.wait_for_timeout(SETTLE_MS)
            self.page.screenshot(path=path, animations="disabled")
            self.page.set_viewport_size(WINDOW)  # type: ignore[arg-type]
        shrink(path)


def shrink(path: Path) -> None:
    """Fewer colours where a picture is too heavy; a screen has few anyway."""
    from PIL import Image

    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(colors=192, method=Image.Quantize.FASTOCTREE)
    few.save(path, optimize=True)
    if path.stat().st_size > PICTURE_MAX_BYTES:
        pytest.fail(f"{path} has {path.stat().st_size} bytes")
