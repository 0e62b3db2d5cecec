"""What Granian serves: the WSGI application, in a worker that never outlives its master.

Granian's workers keep serving when their master is killed, which would hold the port against its
successor; the kernel is asked to end them with it.
"""

from __future__ import annotations

import os
import signal

from engine.run.child import die_with_parent

if "LAISEE_RUN_PROCESS" in os.environ:
    die_with_parent(signal.SIGKILL, os.getppid())

# After the lines above: a worker must be tied before it loads for long.
from engine.wsgi import application

__all__ = ["application"]
