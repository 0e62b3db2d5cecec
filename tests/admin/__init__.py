"""The staff's screens, through Django's test client: what they show, refuse and change."""

from __future__ import annotations
