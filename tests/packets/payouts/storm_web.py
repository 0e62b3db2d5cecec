"""What Granian serves in a storm: the web door, by a clock that the test moves."""

from __future__ import annotations

import tests.packets.payouts.storm_clock  # noqa: F401 (first: it moves what others import)
from engine.run.web import application

__all__ = ["application"]
