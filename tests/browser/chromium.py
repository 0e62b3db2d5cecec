"""Chromium and Chinese fonts for the browser tests: found, or fetched by apt-get where that may be.

`python -m tests.browser.chromium` is what `make test` runs first. It never fails: where a browser
can't be had, the browser tests are skipped and say why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
# The second one only matters for pictures: dates as Chinese browsers write them.
PACKAGES = ("chromium", "chromium-l10n", "fonts-noto-cjk")
# Seconds; two packages of about 150 MB together.
INSTALL_TIMEOUT_S = 600
HOW = "as root, `make browser` installs it; elsewhere: apt-get install " + " ".join(PACKAGES)

# No profile, no network of its own, no sandbox (tests run as root in containers).
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
)


def executable() -> str | None:
    """The path of a browser, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def speaks_chinese() -> bool:
    """Whether Chinese letters are drawn instead of empty boxes."""
    fonts = shutil.which("fc-list")
    if fonts is None:
        return False
    listed = subprocess.run([fonts, ":lang=zh-cn"], capture_output=True, timeout=60, check=False)
    return bool(listed.stdout.strip())


def missing() -> str:
    """Why there can be no browser test, or the empty text."""
    if executable() is None:
        return f"no Chromium on this machine; {HOW}"
    if not speaks_chinese():
        return f"no font with Chinese letters on this machine; {HOW}"
    return ""


def install() -> None:
    """Fetch both by apt-get, if this is root on a Debian."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-q"], ["install", "-qy", "--no-install-recommends", *PACKAGES]):
        subprocess.run(
            [apt, *arguments],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )


def main() -> int:
    if missing():
        print("· fetching Chromium and Chinese fonts for the browser tests", flush=True)
        try:
            install()
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"! {error}", file=sys.stderr)
    why = missing()
    print(f"! browser tests will be skipped: {why}" if why else f"· browser: {executable()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
