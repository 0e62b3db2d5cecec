"""Held money as its person sees it, and what they say about it."""

from __future__ import annotations

from typing import NoReturn

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from engine.lib.clock import rfc3339
from engine.lib.ids import parse_hex_id
from engine.lib.openapi import problems
from engine.lib.pages import PAGE_PARAMETERS, paginate
from engine.lib.problem import Code, ProblemError
from engine.lib.schema import parse_body
from packets.api import hold_schemas
from packets.api.views.base import ParticipantView
from packets.holds.appeals import hold_appeal
from packets.models import Hold

NO_STORE = {"Cache-Control": "no-store"}


class MyHolds(ParticipantView):
    @extend_schema(
        operation_id="me_holds_list",
        summary="Your money that waits for a decision, or that was decided, newest first",
        parameters=PAGE_PARAMETERS,
        responses={200: hold_schemas.HoldPage, **problems(Code.INVALID)},
        tags=["me"],
    )
    def get(self, request: Request) -> Response:
        page = paginate(
            request,
            Hold.objects.filter(participant=self.caller(request).participant).select_related(
                "appeal"
            ),
            keys=["-opened_at", "-id"],
            item=hold_schemas.hold_of,
        )
        return Response(page, headers=NO_STORE)


class MyHoldAppeal(ParticipantView):
    @extend_schema(
        operation_id="me_holds_appeal",
        summary="Say something about your held money",
        description=(
            "Once for each hold, while it is `open`; a person reads it. The same text again is "
            "answered 202 again; another text, or a hold that is decided, 409."
        ),
        request=hold_schemas.AppealBody,
        responses={
            202: hold_schemas.Appeal,
            **problems(Code.NOT_FOUND, Code.CONFLICT, Code.INVALID),
        },
        tags=["me"],
    )
    def post(self, request: Request, hold_id: str) -> Response:
        body = parse_body(request, hold_schemas.AppealBody)
        caller = self.caller(request)
        known = parse_hex_id(hold_id)
        if known is None:
            _no_hold()
        try:
            appeal = hold_appeal(
                hold_id=known,
                participant=caller.participant,
                text=body.text,
                actor=f"person:{caller.participant.hex()}",
            )
        except Hold.DoesNotExist:
            _no_hold()
        answer = hold_schemas.Appeal(hold=known.hex, appealed_at=rfc3339(appeal.created_at))
        return Response(answer, status=202, headers=NO_STORE)


def _no_hold() -> NoReturn:
    """The same answer whether there is none or it is another's."""
    raise ProblemError(404, Code.NOT_FOUND, "You have no such hold.")
