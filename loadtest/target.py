"""Where the product runs, and how the crowd gets its packet and its tokens.

A running copy leaves its addresses in `DATA_DIR/run/env`; `HOST` names another one. The demo's
packet and the client app's key come from `manage.py seed_demo`, and tokens are signed here with
that key: minting over HTTP would measure the mint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jwt

ROOT = Path(__file__).resolve().parent.parent
AUDIENCE = "laisee"
TOKEN_TTL_S = 600  # the contract allows 15 minutes; clocks may differ by some of it
MANAGE_TIMEOUT_S = 300  # a command that hangs must not hang the crowd


class TargetProblem(Exception):
    """The product isn't there or can't be asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """What the crowd needs of `seed_demo`'s answer."""

    packet: str
    pool: str
    kid: str
    secret: str


@dataclass(frozen=True, slots=True)
class Target:
    """A copy of the product: its address, its data folder, and the environment of its commands."""

    base_url: str
    data_dir: Path
    environment: Mapping[str, str]

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `manage.py`; the exit code is the caller's to judge."""
        return subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MANAGE_TIMEOUT_S,
            check=False,
        )

    def manage_lines(self, *arguments: str) -> list[str]:
        """The output of a command that must succeed."""
        done = self.manage(*arguments)
        if done.returncode != 0:
            raise TargetProblem(
                f"manage.py {' '.join(arguments)} failed ({done.returncode}):\n"
                f"{done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout.splitlines()

    def seed(self) -> Seeded:
        """Make sure that there is a packet to claim, and learn the client app's key."""
        lines = self.manage_lines("seed_demo")
        try:
            seeded = json.loads("\n".join(lines))
            key = seeded["client_key"]
            return Seeded(seeded["packet"], seeded["pool"], key["kid"], key["secret"])
        except (ValueError, KeyError, TypeError) as error:
            raise TargetProblem(f"manage.py seed_demo printed no usable JSON: {error}") from error


def mint_token(*, user: str, kid: str, secret: str, now_s: float | None = None) -> str:
    """A client token for `user`, as the demo client app's own back end would sign it."""
    issued = int(time.time() if now_s is None else now_s)
    claims = {"sub": user, "aud": AUDIENCE, "iat": issued, "exp": issued + TOKEN_TTL_S}
    return jwt.encode(claims, secret, algorithm="HS256", headers={"kid": kid})


def read_env_file(path: Path) -> dict[str, str]:
    """KEY=value lines; blank lines and comments are left out."""
    if not path.exists():
        return {}
    pairs = (
        line.split("=", 1)
        for line in path.read_text(encoding="utf-8").splitlines()
        if "=" in line and not line.startswith("#")
    )
    return {key.strip(): value.strip() for key, value in pairs}


def find_target(environment: Mapping[str, str] | None = None) -> Target:
    """The copy that HOST names, else the one that runs from DATA_DIR (DOOR=edge: its edge)."""
    given = os.environ if environment is None else environment
    data_dir = Path(given.get("DATA_DIR") or ROOT / ".data").resolve()
    running = read_env_file(data_dir / "run" / "env")
    key = "EDGE_URL" if given.get("DOOR") == "edge" else "BASE_URL"
    base_url = given.get("HOST") or running.get(key)
    if not base_url:
        raise TargetProblem(
            f"nothing runs from {data_dir}: start it with `make run`, or name it with HOST=http://…"
        )
    return Target(base_url.rstrip("/"), data_dir, {"DATA_DIR": str(data_dir)})
