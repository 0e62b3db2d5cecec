"""A packet, a claim on it, and its proof."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from engine.lib import counters
from engine.lib.middleware import client_ip, peer_of
from engine.lib.openapi import problems
from engine.lib.pages import PAGE_PARAMETERS
from engine.lib.problem import Code, ProblemError
from engine.lib.schema import parse_body
from packets import selectors, sightings
from packets.api import schemas, shapes
from packets.api.proofs import proof_document
from packets.api.views.base import ParticipantView, no_packet, packet_id_of
from packets.claiming.effects import Unavailable
from packets.claiming.limits import OVER_LIMIT, OverLimit
from packets.claiming.sync import claim


class PacketDetail(ParticipantView):
    @extend_schema(
        operation_id="packets_retrieve",
        summary="A packet, what is left of it, and your own claim",
        responses={200: schemas.Packet},
        tags=["packets"],
    )
    def get(self, request: Request, packet_id: str) -> Response:
        seen = selectors.packet_seen(packet_id_of(packet_id), self.caller(request))
        if seen is None:
            no_packet()
        return Response(shapes.packet(seen), headers={"Cache-Control": "no-store"})


class PacketClaims(ParticipantView):
    @extend_schema(
        operation_id="packets_claims_create",
        summary="Claim a portion of a packet",
        description=(
            "Losing is not an error: the answer is 200 with a `result`. The same person may ask "
            "again at any time and hears of the same claim. `busy` carries Retry-After: the packet "
            "may still have a portion. Over a limit the answer is 429 with Retry-After, RateLimit "
            "and RateLimit-Policy; nothing of such a claim is counted."
        ),
        request=schemas.ClaimBody,
        responses={
            200: OpenApiResponse(schemas.ClaimAnswer, description="Won, or why not."),
            **problems(Code.RATE_LIMITED),
        },
        tags=["packets"],
    )
    def post(self, request: Request, packet_id: str) -> Response:
        body = parse_body(request, schemas.ClaimBody)
        caller = self.caller(request)
        try:
            answered = claim(
                packet_id_of(packet_id), caller, schemas.claim_request(body), client_ip(request)
            )
        except OverLimit as over:
            counters.count(f"{packet_id}:{OVER_LIMIT}")
            raise shapes.over_limit(over) from over
        except Unavailable as trouble:
            raise ProblemError(
                503,
                Code.UNAVAILABLE,
                "The claim could not be completed. Send the same request again: nothing is lost.",
                headers={"Retry-After": str(trouble.retry_after_s)},
            ) from trouble
        if answered is None:
            no_packet()
        outcome, view = answered
        if not outcome.test:
            counters.count(f"{view.id.hex}:{outcome.result}")
        if outcome.is_new_win:
            sightings.note(view.id, caller, *peer_of(request))
        headers = {"Cache-Control": "no-store"}
        if outcome.retry_after_s is not None:
            headers["Retry-After"] = str(outcome.retry_after_s)
        return Response(shapes.claim_answer(outcome, view, caller.participant), headers=headers)


class PacketProof(ParticipantView):
    @extend_schema(
        operation_id="packets_proof_retrieve",
        summary="Everything needed to recompute each portion of a closed packet",
        description=(
            "409 until the packet is closed for good. A packet of many claims comes in pages: "
            "follow `next` and put the `claims` of all pages together."
        ),
        parameters=[PAGE_PARAMETERS[1]],
        responses={200: schemas.Proof, **problems(Code.CONFLICT, Code.INVALID)},
        tags=["packets"],
    )
    def get(self, request: Request, packet_id: str) -> Response:
        caller = self.caller(request)
        seen = selectors.packet_of_app(packet_id_of(packet_id), caller.client_app_id)
        if seen is None:
            no_packet()
        return Response(proof_document(seen, request))
