"""Reads configuration strictly: a value that can't be meant stops the process and says why.

Sources, first found wins: the environment (`X`), a file named by the environment (`X_FILE`, for
secrets), and `DATA_DIR/run/env`, which a running copy writes so that `manage.py` in another shell
talks to it without further ado.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class EnvironmentProblem(Exception):
    """A setting is missing or malformed; the message names it and says what is accepted."""


def read_env_file(path: Path) -> dict[str, str]:
    """KEY=value lines of `path`; an absent file is empty. Blank lines and `#` lines are skipped."""
    if not path.is_file():
        return {}
    values: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, separator, value = line.partition("=")
        if not separator or not key.strip():
            raise EnvironmentProblem(f"{path}, line {number}: expected KEY=value")
        values[key.strip()] = value.strip()
    return values


class Env:
    """Typed reads from one environment with a fallback of lower rank."""

    def __init__(
        self, environ: Mapping[str, str] | None = None, fallback: Mapping[str, str] | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._fallback = {} if fallback is None else fallback

    def _raw(self, name: str) -> str | None:
        if name in self._environ:
            return self._environ[name]
        file_name = self._environ.get(f"{name}_FILE", "")
        if file_name:
            path = Path(file_name)
            # A secret's file that can't be read must not silently become a default.
            if not path.is_file():
                raise EnvironmentProblem(f"{name}_FILE names {file_name}, which is not a file")
            return path.read_text(encoding="utf-8").strip()
        return self._fallback.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._raw(name)
        if value is None:
            if default is None:
                raise EnvironmentProblem(f"{name} is not set (nor {name}_FILE)")
            return default
        return value

    def boolean(self, name: str, default: bool) -> bool:
        value = self._raw(name)
        if value is None:
            return default
        if value not in ("True", "False"):
            raise EnvironmentProblem(f"{name} must be True or False, not {value!r}")
        return value == "True"

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        value = self._raw(name)
        if value is None:
            return default
        try:
            number = int(value)
        except ValueError:
            raise EnvironmentProblem(f"{name} must be a whole number, not {value!r}") from None
        if not low <= number <= high:
            raise EnvironmentProblem(f"{name} must lie in {low}..{high}, not {number}")
        return number

    def seconds(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """A comma-separated list of periods, each more than nothing and at most a month."""
        words = self.words(name, [])
        if not words:
            return default
        try:
            found = tuple(float(word) for word in words)
        except ValueError:
            raise EnvironmentProblem(f"{name} must be a list of seconds") from None
        if not all(0 < period <= 31 * 24 * 3600 for period in found):
            raise EnvironmentProblem(f"{name} must hold periods of up to a month, in seconds")
        return found

    def words(self, name: str, default: list[str]) -> list[str]:
        """A comma-separated list without blanks."""
        value = self._raw(name)
        if value is None:
            return default
        return [word.strip() for word in value.split(",") if word.strip()]

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise EnvironmentProblem(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        return value
