#!/usr/bin/env python3
"""Django's command line, from any Python: it finds the virtual environment by itself.

Commands that change the schema or its rights, or remove a drill, run as the owner of the database;
every other command runs with the application's role, which may do less.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
OWNER_COMMANDS = {"migrate", "grant_app_rights", "drill_remove"}


def main() -> None:
    if find_spec("django") is None:
        python = HERE / ".venv" / "bin" / "python"
        if not python.exists() or os.environ.get("LAISEE_REEXEC"):
            sys.exit("Django is not installed here. Run `make venv` first, then try again.")
        os.environ["LAISEE_REEXEC"] = "1"
        os.execv(python, [str(python), *sys.argv])
    os.environ.pop("LAISEE_REEXEC", None)
    sys.path.insert(0, str(HERE))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engine.settings")
    if len(sys.argv) > 1 and sys.argv[1] in OWNER_COMMANDS:
        os.environ["LAISEE_RUN_AS_OWNER"] = "True"

    from django.core.management import execute_from_command_line

    from engine.lib.env import EnvironmentProblem

    try:
        execute_from_command_line(sys.argv)
    except EnvironmentProblem as problem:
        hint = "is a copy running (`make run`)?" if "not set" in str(problem) else ""
        sys.exit(f"manage.py: {problem}" + (f"; {hint}" if hint else ""))


if __name__ == "__main__":
    main()
