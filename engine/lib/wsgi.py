"""Bodies without a Content-Length (chunks, HTTP/2): read here, or Django would see an empty one.

A claim whose password silently got lost would be answered as if none had been sent.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from engine.lib.renderers import MAX_EVENTS_BODY_BYTES

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]


def with_chunked_bodies(application: Application) -> Application:
    """`application`, for which every body has a length."""

    def wrapped(environ: Environ, start_response: Any) -> Iterable[bytes]:
        chunked = "HTTP_TRANSFER_ENCODING" in environ or environ["SERVER_PROTOCOL"][:6] == "HTTP/2"
        if chunked and not environ.get("CONTENT_LENGTH"):
            # One byte more than any route takes: the middleware then refuses it by its length.
            body = environ["wsgi.input"].read(MAX_EVENTS_BODY_BYTES + 1)
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        return application(environ, start_response)

    return wrapped
