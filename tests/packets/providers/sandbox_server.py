"""The sandbox as tests start it: a process of its own, with books in the test's folder."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from engine.run import services, spawn
from engine.run.paths import free_port
from packets.providers.sandbox.adapter import SandboxProvider

START_TIMEOUT_S = 30.0
# Seconds that tests wait for an answer: more than a busy machine needs, less than a fault holds.
PATIENCE_S = 2.0


class SandboxServer:
    """`with SandboxServer(folder) as sandbox:`; `kill` and `start` as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.secret = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, Any]:
        return {"secret": self.secret, "patience_s": str(PATIENCE_S)}

    def provider(self, **credentials: Any) -> SandboxProvider:
        return SandboxProvider(self.url, {**self.credentials, **credentials})

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = spawn.start(
            services.sandbox_command(self.port),
            name="sandbox",
            data_dir=self.folder,
            log=self.folder / "sandbox.log",
            death_signal=signal.SIGTERM,
            environ={
                **os.environ,
                "SANDBOX_SECRET": self.secret,
                "SANDBOX_DIR": str(self.folder),
            },
            cwd=Path(__file__).resolve().parents[3],
        )
        ready = spawn.wait_until(lambda: services.answers(self.port, "/healthz"), START_TIMEOUT_S)
        assert ready, spawn.tail(self.folder / "sandbox.log")

    def kill(self) -> None:
        """As if the machine took it: master and worker at once."""
        if self.process is not None:
            spawn.group_signal(self.process.pid, signal.SIGKILL)
            self.process.wait()
            spawn.kill_strays(self.folder)  # its worker may take a moment longer
            self.process = None

    def __enter__(self) -> SandboxServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


@dataclass(frozen=True)
class Received:
    headers: dict[str, str]
    raw: bytes


class Receiver:
    """Takes callbacks as our route would, answers `status`, and keeps them."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(Received(dict(self.headers.items()), raw))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/callback"

    def about(self, out_number: str) -> list[Received]:
        return [one for one in self.received if out_number.encode() in one.raw]

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
