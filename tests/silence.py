"""A way to a server that can go silent: it takes everything, acknowledges it, and says nothing."""

from __future__ import annotations

import contextlib
import socket
import threading


class SilentWay:
    """Listens on `port` and passes bytes to and from (host, target) until `silent` is set."""

    def __init__(self, host: str, target: int) -> None:
        self.silent = False
        self._target = host, target
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                if not self.silent:
                    sink.sendall(data)
        except OSError:
            return  # closed

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):  # it may not be connected any more
                one.shutdown(socket.SHUT_RDWR)
            one.close()
