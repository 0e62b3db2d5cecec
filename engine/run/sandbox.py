"""What Granian serves as the payout sandbox, in a worker that never outlives its master."""

from __future__ import annotations

import os
import signal
from importlib import import_module

from engine.run.child import die_with_parent

if "LAISEE_RUN_PROCESS" in os.environ:
    die_with_parent(signal.SIGKILL, os.getppid())

# By name: the kernel imports nothing of the rooms above it. No Django in there.
application = import_module("packets.providers.sandbox.server").from_environment()

__all__ = ["application"]
