"""`make drill DRILL=lny_eve`: replays a night against a copy of the system and passes a verdict.

    DRILL=stampede PEAK=300 python -m loadtest.drill_run

Without HOST it starts a copy of its own, on its own ports and data. Leaves `result.json` and the
logs in `DATA_DIR/drill/RUN/`. Exit codes: 0 all held; 4 the money is wrong; 1 errors; 3 an SLO was
breached, the first that applies; 2 it could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from loadtest import faults
from loadtest.arrivals import portions_of
from loadtest.faults import Faults, Wanted
from loadtest.harm import System, quick_flushes
from loadtest.judging import EXIT_NOT_RUN, Played, judge
from loadtest.profiles import PROFILES, Profile
from loadtest.proxy import Proxy
from loadtest.target import ROOT, Target, TargetProblem, find_target

DEFAULT_PEAK_PER_S = 100.0
WORKERS = 2  # processes that make the arrivals
PATIENCE_S = 45.0  # a person asks again for so long where no answer is settled
GRACE_S = 90.0  # for the last people's patience
READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 45.0
LAG_PATIENCE_S = 120.0
LAG_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    profile: Profile
    peak_per_s: float
    seed: int
    run: str
    length_s: float
    faults: list[Wanted]
    patience_s: float
    judge_only: bool


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m loadtest.drill_run", description=__doc__)
    environ = os.environ
    parser.add_argument("--drill", default=environ.get("DRILL", "lny_eve"), help="the profile")
    parser.add_argument(
        "--peak", type=float, default=environ.get("PEAK") or DEFAULT_PEAK_PER_S,
        help="arrivals in the busiest second",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=environ.get("SEED") or 1)
    parser.add_argument("--run", default=environ.get("RUN", ""), help="name (default: the time)")
    parser.add_argument("--length", type=float, help="seconds (default: the profile's)")
    parser.add_argument(
        "--faults", default=environ.get("FAULTS", ""), help="such as kill_redis@60,kill_edge@90"
    )
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_S, help="seconds that people ask again for"
    )
    parser.add_argument(
        "--judge", metavar="RUN", help="pass the verdict on an earlier run once more"
    )
    given = parser.parse_args(arguments)
    profile = PROFILES.get(given.drill)
    if profile is None:
        parser.error(f"there is no drill {given.drill}; there are {', '.join(sorted(PROFILES))}")
    if not 1 <= given.peak <= 1_000_000:
        parser.error("PEAK is at least 1 arrival a second")
    length_s = given.length or profile.length_s
    try:
        wanted = faults.parse(given.faults)
    except ValueError as problem:
        parser.error(f"FAULTS: {problem}")
    if wanted and os.environ.get("HOST"):
        parser.error("FAULTS act on the drill's own copy only: leave HOST out")
    for one in wanted:
        if one.ends_s >= length_s:
            parser.error(f"FAULTS: {one} isn't over before the drill's end at {length_s:.0f} s")
    return Options(
        profile=replace(profile, length_s=length_s),
        peak_per_s=given.peak,
        seed=given.seed,
        run=given.judge or given.run or time.strftime("%y%m%d-%H%M%S-") + secrets.token_hex(2),
        length_s=length_s,
        faults=wanted,
        patience_s=given.patience,
        judge_only=given.judge is not None,
    )


# --- a copy of one's own --------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def own_copy(console: Console, wanted: Sequence[Wanted] = ()) -> Iterator[tuple[Target, System]]:
    """`python -m engine.run up` on data and ports of the drill's; stopped at the end.

    Where a fault wants a bad network its proxy is in place before anything starts.
    """
    data_dir = Path(os.environ.get("DATA_DIR") or ROOT / ".data").resolve() / "drill" / "copy"
    data_dir.mkdir(parents=True, exist_ok=True)
    environ = {
        **{name: value for name, value in os.environ.items() if name not in ("HOST", "DOOR")},
        "DATA_DIR": str(data_dir),
        "PORT": str(_free_port()),
        "EDGE_PORT": str(_free_port()),
    }
    networks: dict[str, Proxy] = {}
    system = System(data_dir, networks)
    with ExitStack() as stack:
        for name in sorted({one.network for one in wanted if one.network}):
            networks[name] = stack.enter_context(Proxy(partial(system.address, name)))
            if name != "door":  # which the crowd goes through, and nobody of the copy
                environ[f"{name.upper()}_VIA_PORT"] = str(networks[name].port)
        stack.enter_context(_running(environ, data_dir.parent / "copy.log", console))
        quick_flushes(system)  # a drill that was killed may have left them slow
        target = find_target({**os.environ, "DATA_DIR": str(data_dir), "HOST": ""})
        if "door" in networks:
            target = replace(target, base_url=f"http://127.0.0.1:{networks['door'].port}")
        yield target, system


@contextmanager
def _running(environ: Mapping[str, str], log: Path, console: Console) -> Iterator[None]:
    """The copy's processes, from when they are ready on."""
    where = environ["DATA_DIR"]
    console.print(f"starting a copy for the drill on {where}", soft_wrap=True, highlight=False)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.run", "up", "--with-parent"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while b"\nready:" not in b"\n" + log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise TargetProblem(f"the copy did not get ready:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# --- the crowd ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seeded:
    campaign: str
    packets: list[str]
    kid: str
    secret: str


def seed(target: Target, options: Options) -> Seeded:
    portions = portions_of(options.profile, options.peak_per_s, options.seed)
    lines = target.manage_lines(
        "drill_campaign", "--run", options.run, "--portions", *map(str, portions)
    )
    made = json.loads("\n".join(lines))
    return Seeded(
        made["campaign"], made["packets"], made["client_key"]["kid"], made["client_key"]["secret"]
    )


def send_the_crowd(target: Target, seeded: Seeded, options: Options, folder: Path) -> int:
    """Locust in processes of its own; its exit code."""
    orders = {
        "profile": options.profile.name,
        "length_s": options.length_s,
        "peak_per_s": options.peak_per_s,
        "seed": options.seed,
        "run": options.run,
        "packets": seeded.packets,
        "kid": seeded.kid,
        "secret": seeded.secret,
        "folder": str(folder),
        "workers": WORKERS,
        "patience_s": options.patience_s,
    }
    port = str(_free_port())
    with (folder / "locust.log").open("wb") as output:
        return subprocess.run(
            [
                *(sys.executable, "-m", "locust", "--locustfile", "loadtest/drill.py"),
                *("--headless", "--only-summary", "--host", target.base_url),
                *("--processes", str(WORKERS), "--expect-workers", str(WORKERS)),
                *("--users", str(WORKERS), "--spawn-rate", str(WORKERS)),
                *("--run-time", f"{int(options.length_s + GRACE_S)}s", "--stop-timeout", "5"),
                *("--master-bind-port", port, "--master-port", port, "--loglevel", "WARNING"),
            ],
            cwd=ROOT,
            # The orders hold the client app's key, so they travel where `ps` does not show them.
            env={**os.environ, "LAISEE_DRILL": json.dumps(orders)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=options.length_s + 2 * GRACE_S,
            check=False,
        ).returncode


# --- all of it ------------------------------------------------------------------------------------


def settlement_lag(target: Target) -> float | None:
    """Seconds until no committed claim waits for its settlement; None: not within the patience."""
    begun = time.monotonic()
    while time.monotonic() - begun < LAG_PATIENCE_S:
        audit = json.loads(target.manage("audit_money", "--json").stdout)
        if audit["progress"]["waiting"] == 0:
            return time.monotonic() - begun
        time.sleep(LAG_LOOK_EVERY_S)
    return None


def drill(
    target: Target, options: Options, folder: Path, console: Console, system: System | None = None
) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    seeded = seed(target, options)
    console.print(
        f"{options.profile.name}: {options.length_s:.0f} s, at most {options.peak_per_s:,.0f}"
        f" arrivals a second, on {target.base_url}, campaign {seeded.campaign}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    begins_file = folder / "begins_at"
    playing = Faults(options.faults, system or System(target.data_dir), begins_file)
    try:
        code = send_the_crowd(target, seeded, options, folder)
    finally:
        faults_played = playing.join()
    if code != 0 or not begins_file.exists() or (folder / "broken").exists():
        raise TargetProblem((folder / "locust.log").read_text(errors="replace")[-3_000:])
    played = Played(
        run=options.run,
        profile=options.profile.name,
        length_s=options.length_s,
        peak_per_s=options.peak_per_s,
        seed=options.seed,
        campaign=seeded.campaign,
        packets=seeded.packets,
        begins_at=float(begins_file.read_text()),
        faults=faults_played,
        lag_s=settlement_lag(target),
        again=again(options),
        machine=machine(),
    )
    played.write(folder)
    return judge(target, played, folder, console)


def judge_again(
    target: Target, _options: Options, folder: Path, console: Console, _system: System | None = None
) -> int:
    if not (folder / "played.json").exists():
        raise TargetProblem(f"no drill was played in {folder}")
    return judge(target, Played.read(folder), folder, console)


def again(options: Options) -> str:
    """The command that plays the same night."""
    named = ",".join(map(str, options.faults))
    return (
        f"make drill DRILL={options.profile.name} PEAK={options.peak_per_s:g} SEED={options.seed}"
        + (f" FAULTS={named}" if named else "")
    )


def machine() -> dict[str, str]:
    cpu = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpu.read_text().splitlines() if cpu.exists() else [])
        if line.startswith("model name")
    ]
    version = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "version": version or "unknown",
        "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "crowd": f"{WORKERS} processes on the same machine",
    }


def beside_others(
    play: Callable[[Target, Options, Path, Console], int],
    options: Options,
    folder: Path,
    console: Console,
) -> int:
    """On a system that others use as well: the drill stays there until somebody takes it away."""
    try:
        return play(find_target(), options, folder, console)
    finally:
        console.print(
            f"to remove it, on that system: manage.py drill_remove --campaign drill-{options.run}"
            " (counts only; --yes removes)",
            highlight=False,
            soft_wrap=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    console = Console(soft_wrap=False)
    options = parse_options(arguments)
    folder = Path(os.environ.get("DATA_DIR") or ROOT / ".data").resolve() / "drill" / options.run
    play = judge_again if options.judge_only else drill
    try:
        if os.environ.get("HOST"):
            return beside_others(play, options, folder, console)
        with own_copy(console, options.faults) as (target, system):
            return play(target, options, folder, console, system)
    except TargetProblem as problem:
        console.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        return EXIT_NOT_RUN
    except KeyboardInterrupt:
        console.print("the drill was ended")
        return 130


if __name__ == "__main__":
    sys.exit(main())
