"""The edge's addresses: the two hot routes and the probes, by the web door's own views."""

from __future__ import annotations

from typing import Any

from django.urls import path
from django.utils.module_loading import import_string

from engine.lib.health import healthz, readyz


def view(name: str) -> Any:
    """A view of the packets' room, by name: the kernel imports nothing of the rooms above it."""
    return import_string(f"packets.api.views.packets.{name}").as_view()


urlpatterns = [
    path("healthz", healthz),
    path("readyz", readyz),
    path("api/v1/packets/<str:packet_id>", view("PacketDetail")),
    path("api/v1/packets/<str:packet_id>/claims", view("PacketClaims")),
]
