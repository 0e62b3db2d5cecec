"""What all views for participants share."""

from __future__ import annotations

import uuid
from typing import NoReturn

from rest_framework.request import Request
from rest_framework.views import APIView

from engine.lib.auth import Caller, ClientTokenAuthentication, IsParticipant
from engine.lib.ids import parse_hex_id
from engine.lib.problem import Code, ProblemError


class ParticipantView(APIView):
    """For a client token's holder. Whose rows are read follows from the token, never from input."""

    authentication_classes = [ClientTokenAuthentication]
    permission_classes = [IsParticipant]

    def caller(self, request: Request) -> Caller:
        caller = request.user
        assert isinstance(caller, Caller)
        return caller


def no_packet() -> NoReturn:
    """The same answer whether there is none, it is a draft, or it is another app's."""
    raise ProblemError(404, Code.NOT_FOUND, "There is no such packet.")


def packet_id_of(text: str) -> uuid.UUID:
    packet_id = parse_hex_id(text)
    return packet_id if packet_id is not None else no_packet()
