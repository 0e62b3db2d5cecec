"""What the web door's claim is measured against: a DRF POST with the same token that does nothing.

The same settings, middlewares, authentication, permission, parser and renderer; only the view's
body is empty.
"""

from __future__ import annotations

import os
import signal

from engine.run.child import die_with_parent

if "LAISEE_RUN_PROCESS" in os.environ:
    die_with_parent(signal.SIGKILL, os.getppid())

# After the lines above: a worker must be tied before it loads for long.
from django.conf import settings
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from engine.wsgi import application
from packets.api import schemas
from packets.api.views.base import ParticipantView

PATH = "api/v1/nothing"


class DoNothing(ParticipantView):
    def post(self, request: Request) -> Response:
        self.caller(request)
        return Response(
            schemas.ClaimAnswer(
                result=schemas.Result.BUSY,
                packet=schemas.PacketLeft(left_count=0, state=schemas.PacketState.OPEN),
            ),
            headers={"Cache-Control": "no-store"},
        )


urlpatterns = [path(PATH, DoNothing.as_view())]
settings.ROOT_URLCONF = __name__

__all__ = ["application", "urlpatterns"]
