"""What Granian serves at the edge: the RSGI door, in a worker that never outlives its master."""

from __future__ import annotations

import gc
import os
import signal
from importlib import import_module

from engine.run.child import die_with_parent

if "LAISEE_RUN_PROCESS" in os.environ:
    die_with_parent(signal.SIGKILL, os.getppid())

# After the lines above: a worker must be tied before it loads for long. Django first (it is also
# the door's second half), then the door by name: the kernel imports nothing of the rooms above it.
import_module("engine.wsgi")
application = import_module("packets.api.door").application

# What is loaded now stays for ever: the collector needn't look at it again and again while claims
# come and go beside it.
gc.collect()
gc.freeze()

__all__ = ["application"]
