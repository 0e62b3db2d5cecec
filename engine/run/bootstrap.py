"""Makes `.venv` and fills it: `PYTHON engine/run/bootstrap.py requirements-local.txt`.

Runs with any Python from 3.11 on, before anything is installed, so it uses the standard library
alone. A stamp with the requirements' digest makes every later call a matter of milliseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)


def digest(name: str) -> str:
    """Of the file and of every file it includes with `-r`."""
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    parts = [hashlib.sha256(text.encode()).hexdigest()]
    for line in text.splitlines():
        if line.startswith("-r "):
            parts.append(digest(line[3:].strip()))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def works() -> bool:
    """Whether `.venv` holds a Python that starts and a pip; a moved or half-made one doesn't."""
    if not PYTHON.exists():
        return False
    code = f"import sys, pip; sys.exit(sys.version_info < {OLDEST})"
    return subprocess.run([str(PYTHON), "-c", code], capture_output=True).returncode == 0


def make() -> None:
    if VENV.exists():
        shutil.rmtree(VENV)
    print(f"· making .venv with {sys.executable} ({sys.version.split()[0]})", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if made.returncode == 0 and works():
        return
    # Debian's python3 has no ensurepip until python3-venv is installed; its own pip can help.
    shutil.rmtree(VENV, ignore_errors=True)
    without = [sys.executable, "-m", "venv", "--without-pip", str(VENV)]
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "-q", "pip"]
    done = all(subprocess.run(step, capture_output=True).returncode == 0 for step in (without, pip))
    if done and works():
        return
    shutil.rmtree(VENV, ignore_errors=True)
    print(made.stdout + made.stderr, file=sys.stderr)
    sys.exit(
        f"! {sys.executable} can't make a virtual environment with pip.\n"
        "  On Debian and Ubuntu: apt install python3-venv; or name another interpreter: "
        "make run PYTHON=/path/to/python3.12"
    )


def install(name: str) -> None:
    stamp = VENV / f".{name}.stamp"
    wanted = digest(name)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"· installing {name} (a minute or two the first time)", flush=True)
    command = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if subprocess.run([*command, "--no-compile", "-r", name], cwd=CHECKOUT).returncode != 0:
        sys.exit(f"! pip could not install {name}; what it said stands above")
    compile_all()
    stamp.write_text(wanted)


def compile_all() -> None:
    """What pip would do, but for one library of 18,000 modules, of which we use ten: they are
    compiled when they are imported. Without this every process would compile everything anew where
    Python may not write beside its sources."""
    rest = ["-q", "-j", "0", "-x", r"site-packages/alipay/", str(VENV / "lib")]
    subprocess.run([str(PYTHON), "-m", "compileall", *rest], stdout=subprocess.DEVNULL)


def main(names: list[str]) -> None:
    if sys.version_info < OLDEST:
        sys.exit(f"! Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    # Two commands at once (`make run`, `make test`) take turns.
    descriptor = os.open(CHECKOUT, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if not works():
        make()
    for name in names:
        install(name)


if __name__ == "__main__":
    main(sys.argv[1:])
