"""The shared kernel: settings, URLs, the Celery app, and what every room needs from `engine.lib`.

It imports nothing of ours; the rooms import it.
"""

from __future__ import annotations

from engine.celery import app as celery_app

__all__ = ["celery_app"]
