"""`python -m engine.run up|demo|backup|…`: the Makefile calls it; people need not."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TextIO

import psycopg
import redis

from engine.run import config, spawn
from engine.run.backup import backup, restore
from engine.run.child import die_with_parent
from engine.run.demo import demo
from engine.run.launch import Launch
from engine.run.paths import CHECKOUT, Places, RunProblem
from engine.run.supervisor import Interrupted

# `prepare` makes servers' data, schema and demo campaign, and ends without serving anybody.
ACTIONS = ("up", "prepare", "demo", "backup", "restore", "clean")
# What makes a folder a DATA_DIR of ours; `clean` deletes no other.
MARKS = frozenset({"postgres", "valkey", "secrets"})


def clean(places: Places) -> None:
    """Forget all data of a copy that doesn't run."""
    if not places.root.exists():
        print(f"nothing to forget: {places.root} does not exist")
        return
    found = {path.name for path in places.root.iterdir()}
    if found and not found & MARKS:
        raise RunProblem(f"{places.root} doesn't look like a DATA_DIR of Laisee; left as it is")
    if places.root == CHECKOUT or places.root in CHECKOUT.parents:
        raise RunProblem(f"{places.root} holds the checkout itself; left as it is")
    if spawn.lock(places.lock) is None:
        raise RunProblem(f"a copy runs on {places.root}; stop it first (Ctrl-C)")
    spawn.kill_strays(places.root)
    kept = _kept(places)
    for path in places.root.iterdir():
        if path in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if kept:
        print(f"forgot {places.root}, but for {' and '.join(map(str, kept))}, which opens them")
        return
    places.root.rmdir()
    print(f"forgot {places.root}")


def _kept(places: Places) -> list[Path]:
    """Backups outlive the data they were made of, and so does what they were encrypted with."""
    if not any(places.backups.glob("*")):
        return []
    return [places.backups, places.secrets]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.run", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("file", nargs="?", help="of backup and restore")
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when the calling process is gone"
    )
    arguments = parser.parse_intermixed_args()
    stream: TextIO
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    if arguments.with_parent:
        die_with_parent(signal.SIGTERM, os.getppid())
    try:
        if arguments.action == "clean":
            clean(Places(config.data_dir()))
            return 0
        if arguments.action == "backup":
            return backup(config.read(), arguments.file)
        if arguments.action == "restore":
            return restore(config.read(), arguments.file)
        if arguments.action == "prepare":
            return Launch(config.read()).run(serve=False)
        return Launch(config.read()).run(demo if arguments.action == "demo" else None)
    except (Interrupted, KeyboardInterrupt):
        print("\n! interrupted", flush=True)
        return 1
    except (RunProblem, psycopg.Error, redis.RedisError) as problem:
        print(f"! {problem}", flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
