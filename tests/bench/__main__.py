"""`make bench`: measures, prints the table, writes JSON, and leaves nothing running.

    make bench                 about ten minutes
    make bench QUICK=1         about two, for a first look
    make bench HELD=1000000    so many claims held for the last row, instead of ten million
    make bench OUT=file.json   where the JSON goes; else DATA_DIR/bench.json
    make bench-docs            writes docs/performance.md's tables anew from that JSON

A figure that falls short is a line of the table, not a failure: the exit code is 0 unless something
could not be measured or the money was wrong.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from engine.run.config import data_dir
from loadtest.bench.table import Result, document, result_of
from tests.bench import forest, held, redis_rows, settling
from tests.bench.doors import Doors
from tests.bench.rig import Rig, rig

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- bench begin -->", "<!-- bench end -->"
ROUNDS = 5
QUICK_S, FULL_S = 1.0, 4.0  # seconds of one load in one round
QUICK_SETTLED, FULL_SETTLED = 4_000, 20_000  # claims of one round
QUICK_CALLS, FULL_CALLS = 20_000, 100_000  # of the claim script in one round
QUICK_IN_REDIS, FULL_IN_REDIS = 50_000, 1_000_000  # claims whose memory is looked at
FEW_HELD, QUICK_HELD, FULL_HELD = 10_000, 200_000, 10_000_000


def main(arguments: list[str]) -> int:
    out = Path(os.environ.get("OUT") or data_dir() / "bench.json")
    if arguments == ["docs"]:
        return write_docs(out)
    quick = bool(os.environ.get("QUICK"))
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", file=sys.stderr, flush=True)

    root = Path(tempfile.mkdtemp(prefix="laisee-bench-"))
    try:
        say("starting a private copy: Postgres (fsync on), Valkey, both doors, workers")
        with rig(root) as made:
            result = measure(made, quick, say)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    result.facts["duration"] = f"{time.monotonic() - started:.0f} s"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result.as_json(), indent=1) + "\n")
    print(document(result))
    say(f"written to {out}")
    return 0


def measure(made: Rig, quick: bool, say: Callable[[str], None]) -> Result:
    result = Result(machine(made))
    seconds = QUICK_S if quick else FULL_S
    many = int(os.environ.get("HELD") or (QUICK_HELD if quick else FULL_HELD))
    result.facts["rounds"] = f"{ROUNDS}, {seconds:g} s of each load in each"
    doors = Doors(made, seconds, ROUNDS, say)
    beside = held.Held(made, ROUNDS, QUICK_S, say)
    made.halt()
    try:
        beside.fill(FEW_HELD)
        few = beside.p50()
        say("people, packets, and a first run that isn't counted")
        doors.prepare()
        doors.run()
        doors.report(result)
        settled = QUICK_SETTLED if quick else FULL_SETTLED
        settling.measure(made, ROUNDS, settled, result, say)
        in_redis = QUICK_IN_REDIS if quick else FULL_IN_REDIS
        calls = QUICK_CALLS if quick else FULL_CALLS
        redis_rows.measure(ROUNDS, calls, in_redis, result, say)
        beside.fill(many)
        held.report(few, beside.p50(), many, result)
    finally:
        made.resume()
    forest.measure(ROUNDS, forest.QUICK if quick else forest.FULL, result, say)
    return result


def machine(made: Rig) -> dict[str, str]:
    """What the figures were taken on."""
    text = Path("/proc/cpuinfo").read_text()
    models = {line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line}
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        postgres = str(cursor.fetchone()[0])
    valkey = subprocess.run(
        [f"/proc/{made.groups['valkey'][0]}/exe", "--version"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {
        "cores": str(os.cpu_count()),
        "CPU": ", ".join(sorted(models)) or platform.machine(),
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "Granian": version("granian"),
        "Postgres": postgres,
        "Valkey": next((w[2:] for w in valkey.split() if w.startswith("v=")), valkey.strip()),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def write_docs(source: Path) -> int:
    """The tables of docs/performance.md between their marks, from the JSON of a run."""
    if not source.exists():
        print(f"! there is no {source}: run make bench first", file=sys.stderr)
        return 1
    told = document(result_of(json.loads(source.read_text())))
    before, _, rest = DOCS.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}\n{told}{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
