"""An edge that runs the previous version's scripts, beside those of this version."""

from __future__ import annotations

from engine.run.edge import application
from tests.upgrading.previous import install_scripts

install_scripts()

__all__ = ["application"]
