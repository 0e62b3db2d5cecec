"""`python -m engine.run.serve NAME`: becomes one process of the product, under somebody else's eye.

Containers run this (compose.yaml, deploy/kubernetes/): the command is the very one that the
supervisor of `make run` starts, so the two can't drift apart. It prepares nothing: schema and
rights are `manage.py migrate` and `manage.py grant_app_rights`, run once before.
"""

from __future__ import annotations

import argparse
import os
import sys

from engine.lib.env import Env, EnvironmentProblem
from engine.run import config, services
from engine.run.child import open_many_files


def command_of(name: str, host: str, workers: int | None) -> list[str]:
    """What `name`, one of services.PROCESSES, runs as."""
    if name == "edge":
        port = Env().integer("EDGE_PORT", config.EDGE_PORT, low=1, high=65535)
        return services.door_command(name, host, port, workers)
    if name == "web":
        port = Env().integer("PORT", config.WEB_PORT, low=1, high=65535)
        return services.door_command(name, host, port, workers)
    if name == "beat":
        return services.beat_command()
    return services.worker_command(name, workers)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.run.serve", description=__doc__)
    parser.add_argument("name", choices=services.PROCESSES)
    parser.add_argument("--host", default="127.0.0.1", help="which a door listens on")
    parser.add_argument("--workers", type=int, help="a door's processes; tasks at once of a worker")
    arguments = parser.parse_args()
    if arguments.name == "beat" and arguments.workers:
        parser.error("beat is one process: two would send every sweep twice")
    try:
        command = command_of(arguments.name, arguments.host, arguments.workers)
    except EnvironmentProblem as problem:
        sys.exit(f"! {problem}")
    if arguments.name in services.DOORS:
        os.environ["LAISEE_DOOR"] = arguments.name
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engine.settings")
    # The last lines of a log say what is wrong: a taken address, not fifty frames of Rust.
    os.environ.setdefault("RUST_BACKTRACE", "0")
    open_many_files()
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
