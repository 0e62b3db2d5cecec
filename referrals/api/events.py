"""POST /server/events, and the tickets that a person's device fetches."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from msgspec import UNSET
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from engine.lib.auth import ApiCaller, ApiKeyAuthentication, HasScope
from engine.lib.clock import rfc3339
from engine.lib.openapi import problems
from engine.lib.pages import PAGE_PARAMETERS, paginate
from engine.lib.problem import Code
from engine.lib.renderers import MAX_EVENTS_BODY_BYTES
from engine.lib.schema import parse_body
from packets.api.views.base import ParticipantView
from packets.models import Ticket
from referrals.api import event_schemas as schemas
from referrals.events import receiving, selectors


class ServerEvents(APIView):
    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [HasScope("events")]
    max_body_bytes = MAX_EVENTS_BODY_BYTES

    @extend_schema(
        operation_id="server_events_create",
        summary="What your users did: up to 1,000 events",
        description=(
            "Each event is taken once by its `id`; send a body again as often as you like. One "
            "that is invalid is named with a code and holds up none of the others."
        ),
        request=schemas.EventsBody,
        responses={200: schemas.EventAnswers, **problems(Code.MISSING_SCOPE)},
        tags=["server"],
    )
    def post(self, request: Request) -> Response:
        body = parse_body(request, schemas.EventsBody)
        caller = request.user
        assert isinstance(caller, ApiCaller)
        events = [
            receiving.Event(
                key=event.id,
                user=event.user,
                kind=event.kind,
                at=event.at,
                campaign="" if event.campaign is UNSET else event.campaign,
                mission="" if event.mission is UNSET else event.mission,
            )
            for event in body.events
        ]
        answers = receiving.events_receive(client_app_id=caller.client_app_id, events=events)
        return Response(
            schemas.EventAnswers(
                results=[
                    schemas.EventAnswer(
                        id=event.key, result=answer.result, code=answer.fault or UNSET
                    )
                    for event, answer in zip(events, answers, strict=True)
                ]
            )
        )


class MyTickets(ParticipantView):
    @extend_schema(
        operation_id="me_tickets_list",
        summary="Your tickets, newest first",
        description="Rights to one claim each, from the app's back end and from campaigns' rules.",
        parameters=PAGE_PARAMETERS,
        responses={200: schemas.OwnTicketPage, **problems(Code.INVALID)},
        tags=["me"],
    )
    def get(self, request: Request) -> Response:
        page = paginate(
            request,
            selectors.tickets_of(self.caller(request).participant),
            keys=["-id"],
            item=_ticket,
        )
        return Response(page, headers={"Cache-Control": "no-store"})


def _ticket(ticket: Ticket) -> schemas.OwnTicket:
    own = selectors.own_ticket(ticket)
    return schemas.OwnTicket(
        packet=ticket.packet_id.hex,
        ticket=own.text,
        reason=ticket.reason,
        issued_at=rfc3339(ticket.created_at),
        claim=own.claim_id.hex if own.claim_id else None,
    )
