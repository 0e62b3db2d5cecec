"""Logs: one JSON object a line, from structlog and the standard library alike.

Whatever was bound to the context (request id, address, task) stands on every line. Values whose
names say that they are secret are replaced before anything is rendered, at every depth.
"""

from __future__ import annotations

import logging
import logging.config
import re
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog
from django.conf import settings

REDACTED = "[redacted]"
# Names, not values: a secret that is logged under an innocent name is a defect of the caller.
_SECRET_NAME = re.compile(
    r"(pass(word|wd|phrase)|secret|token|authorization|cookie|api[_-]?key|private[_-]?key|seed"
    r"|signature|payee|ticket)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    # Credentials in the texts of others' messages: JWTs, our API keys, passwords inside URLs.
    r"eyJ[\w-]+\.[\w-]+\.[\w-]*|laisee_[0-9a-f]{12}_[0-9a-f]+|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"
)
_MAX_DEPTH = 6  # deeper structures are cut, so that a cycle can't hang a log call


def _scrub(name: str, value: Any, depth: int = 0) -> Any:
    if name and _SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, str):
        return _SECRET_VALUE.sub(REDACTED, value)
    if isinstance(value, dict | list | tuple) and depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        return {key: _scrub(str(key), item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrub("", item, depth + 1) for item in value]
    return value


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: secrets never reach a log."""
    for name in list(event):
        # structlog's own bookkeeping is no data.
        if not name.startswith("_"):
            event[name] = _scrub(name, event[name])
    return event


def _json(event: Any, **_options: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class TracesOnly(logging.Filter):
    """Passes failures that nobody of ours has caught, with their traces."""

    def filter(self, record: logging.LogRecord) -> bool:
        return bool(record.exc_info)


def configure() -> None:
    """Point structlog and `logging` at one stream. Safe to call again (Celery does, by signal)."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=False)]
        if settings.LOG_FORMAT == "console"
        else [structlog.processors.JSONRenderer(serializer=_json)]
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "structlog": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": [*shared, structlog.stdlib.ExtraAdder()],
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        structlog.processors.format_exc_info,
                        redact,
                        *final,
                    ],
                }
            },
            "handlers": {"stream": {"class": "logging.StreamHandler", "formatter": "structlog"}},
            "root": {"handlers": ["stream"], "level": settings.LOG_LEVEL},
            "filters": {"traces": {"()": TracesOnly}},
            "loggers": {
                # The middleware writes a line per refused request; Django's would be a second.
                "django.request": {"filters": ["traces"]},
                "django.server": {"level": "WARNING"},
            },
        }
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Any:
    """A logger whose keyword arguments become fields of the line."""
    return structlog.stdlib.get_logger(name)
