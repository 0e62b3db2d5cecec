"""Redis scripts that live in files: `<app>/lua/<name>.lua`, with a header that the loader checks.

    -- script: claim
    -- keys: meta bucket              names of KEYS, in order
    -- argv: member known_absent      names of ARGV, in order; a trailing "..." admits more
    -- include: splitting             other files of the folder, put before the script's own text

A call with another number of keys or arguments than the header names is a defect and is refused
before it reaches the server. Scripts run by EVALSHA and load themselves where a server (restarted,
flushed, or another node of a cluster) doesn't know them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

ROOT = Path(__file__).resolve().parent.parent.parent
Argument = str | bytes | int


class ScriptHeaderError(Exception):
    """A script's header is missing or a call doesn't fit it."""


@dataclass(frozen=True)
class Script:
    name: str
    keys: tuple[str, ...]
    argv: tuple[str, ...]
    open_ended: bool
    text: str
    sha: str

    def check(self, keys: Sequence[Argument], args: Sequence[Argument]) -> None:
        if len(keys) != len(self.keys):
            raise ScriptHeaderError(f"{self.name}: {len(keys)} keys, header names {self.keys}")
        short = len(args) < len(self.argv)
        if short or (len(args) > len(self.argv) and not self.open_ended):
            raise ScriptHeaderError(f"{self.name}: {len(args)} arguments, header: {self.argv}")

    def call(self, client: Redis, keys: Sequence[Argument], args: Sequence[Argument]) -> Any:
        """Run on `client`; a server that doesn't know the script is taught it."""
        self.check(keys, args)
        try:
            return client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *args)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script, for any client; the first key decides the node of a cluster."""

    script: Script
    keys: tuple[Argument, ...]
    args: tuple[Argument, ...]

    def run(self, client: Redis) -> Any:
        return self.script.call(client, self.keys, self.args)

    def by_sha(self) -> tuple[Argument, ...]:
        return (b"EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def by_text(self) -> tuple[Argument, ...]:
        return (b"EVAL", self.script.text, len(self.keys), *self.keys, *self.args)


def run_all(client: Redis, calls: Sequence[Call]) -> list[Any]:
    """The replies of several calls, in one trip; of a script unknown there, in one more.

    In a cluster one after the other: redis-py lets no script into a cluster's pipeline.
    """
    if not isinstance(client, Redis):
        return [call.run(client) for call in calls]
    pipeline = client.pipeline(transaction=False)
    for call in calls:
        pipeline.evalsha(call.script.sha, len(call.keys), *call.keys, *call.args)
    replies = pipeline.execute(raise_on_error=False)
    for number, reply in enumerate(replies):
        if isinstance(reply, NoScriptError):
            replies[number] = calls[number].run(client)
        elif isinstance(reply, Exception):
            raise reply
    return replies


def parse(name: str, text: str, include: dict[str, str]) -> Script:
    """A Script from a file's text; `include` holds the texts that its header may ask for."""
    header: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.startswith("-- ") or ":" not in line:
            break
        field, _, value = line[3:].partition(":")
        header[field.strip()] = value.split()
    if header.get("script") != [name] or "keys" not in header or "argv" not in header:
        raise ScriptHeaderError(f"{name}.lua needs the header lines script, keys and argv")
    argv = header["argv"]
    open_ended = bool(argv) and argv[-1] == "..."
    if open_ended:
        argv = argv[:-1]
    whole = "\n".join([*(include[part] for part in header.get("include", [])), text])
    return Script(
        name=name,
        keys=tuple(header["keys"]),
        argv=tuple(argv),
        open_ended=open_ended,
        text=whole,
        sha=hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest(),
    )


@functools.cache
def load(app: str, name: str) -> Script:
    folder = ROOT / app / "lua"
    texts = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.lua")}
    return parse(name, texts[name], texts)
