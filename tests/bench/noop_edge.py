"""What the edge is measured against: the same server with the same options, doing nothing.

It reads the request's body, because the edge must, and answers two bytes.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from engine.run.child import die_with_parent

if "LAISEE_RUN_PROCESS" in os.environ:
    die_with_parent(signal.SIGKILL, os.getppid())

HEADERS = [("content-type", "application/json")]


class Nothing:
    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        await protocol()
        protocol.response_bytes(200, HEADERS, b"{}")


application = Nothing()
