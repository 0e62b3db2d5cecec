"""`make demo`: a crowd takes the demo campaign, some of it withdraws, and the books are checked.

Each step's failure is said, everything is stopped, and the exit code is 1.
"""

from __future__ import annotations

import os
import signal

from engine.run import spawn
from engine.run.launch import Launch
from engine.run.supervisor import Supervisor, say

# The crowds end with the money check, and with exit code 4 where that is red.
STEPS = (
    ("a forest of made-up friends, with a farm in it", ("manage.py", "grow_demo")),
    ("the crowd, then the money check", ("-m", "loadtest.crowd_run")),
    ("winners withdraw, then the books once more", ("-m", "loadtest.withdrawals")),
)


def demo(launch: Launch, supervisor: Supervisor) -> bool:
    """Whether the copy shall stay up."""
    for what, command in STEPS:
        say(f"\n· {what}: python {' '.join(command)}")
        process = launch.command(*command, log=None)
        try:
            supervisor.watch(until=lambda process=process: process.poll() is not None)  # type: ignore[misc]
        finally:
            if process.poll() is None:
                spawn.group_signal(process.pid, signal.SIGTERM)
        if process.returncode != 0:
            say(f"! demo: {what} failed (exit code {process.returncode}); stopping")
            launch.failed = True
            return False
    if os.environ.get("DEMO_EXIT") == "1":
        say("· demo: green; stopping, since DEMO_EXIT=1")
        return False
    say(f"\n· demo: green, and still running: {launch.config.web_url}/admin/ (Ctrl-C stops it)")
    return True
