"""Packets that people send from their own wallets."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from engine.lib.idempotency import KEY_PARAMETER, KEY_PROBLEMS, idempotent
from engine.lib.openapi import problems
from engine.lib.problem import Code
from engine.lib.schema import parse_body
from packets import selectors
from packets.api import schemas, shapes
from packets.api.views.base import ParticipantView
from packets.people_packets import people_packet_create


class Packets(ParticipantView):
    @extend_schema(
        operation_id="packets_create",
        summary="Send a packet of your own, paid from your wallet",
        description=(
            "It can be claimed at once: by the people of the chat group that your token names "
            "(`grp`), or where it names none, by whoever of the same app knows the id. You may "
            "claim a portion of it yourself. What nobody has claimed when it closes goes back to "
            "your wallet. 422 with nothing moved: `insufficient_funds`, `portions_too_small`, "
            "`money_too_young`, `too_many_open`, `blocked`."
        ),
        parameters=[KEY_PARAMETER],
        request=schemas.PacketBody,
        responses={
            201: OpenApiResponse(schemas.Packet, description="Sent."),
            **problems(*KEY_PROBLEMS, Code.CONFLICT),
        },
        tags=["packets"],
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = parse_body(request, schemas.PacketBody)
        caller = self.caller(request)
        key: str = request.idempotency_key  # type: ignore[attr-defined]
        packet = people_packet_create(sender=caller, wanted=schemas.packet_wanted(body), key=key)
        return Response(
            shapes.packet(selectors.packet_new(packet, caller)),
            status=201,
            headers={"Cache-Control": "no-store"},
        )
