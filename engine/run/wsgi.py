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

from engine.wsgi import application  # noqa: E402 - a worker must be tied before it loads for long

__all__ = ["application"]
