"""Campaigns as an app's people see them: what runs, by which rules, with which packets. And the
tickets that the app's back end asks for.
"""

from __future__ import annotations

import hashlib

from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from campaign import selectors
from campaign.api import schemas, shapes
from engine.lib.auth import ApiCaller, ApiKeyAuthentication, HasScope
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.ids import parse_hex_id
from engine.lib.openapi import REF, problems
from engine.lib.pages import PAGE_PARAMETERS, paginate
from engine.lib.problem import Code, ProblemError
from engine.lib.renderers import OrjsonRenderer
from engine.lib.schema import parse_body
from packets.api.views.base import ParticipantView
from packets.tickets import OWN_KEYS, ticket_issue

# Ask again each time, but don't send again what is known.
CACHE_CONTROL = "private, no-cache"
IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match",
    {"type": "string"},
    OpenApiParameter.HEADER,
    description="The ETag of the answer that you have.",
)
# Described already as an item of the page; the same component, not a second of that name.
A_CAMPAIGN = OpenApiResponse({"$ref": REF.format(name=schemas.Campaign.__name__)})
NOT_MODIFIED = OpenApiResponse(description="What you have is current.")


def conditional(request: Request, data: object) -> Response:
    """`data` with an ETag over its bytes; 304 where the caller has just these."""
    etag = f'"{hashlib.sha256(OrjsonRenderer().render(data)).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": CACHE_CONTROL}
    known = [tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")]
    if etag in (tag.removeprefix("W/") for tag in known) or known == ["*"]:
        return Response(status=304, headers=headers)
    return Response(data, headers=headers)


class CampaignList(ParticipantView):
    @extend_schema(
        operation_id="campaigns_list",
        summary="The campaigns that run now, newest first",
        parameters=[*PAGE_PARAMETERS, IF_NONE_MATCH],
        responses={
            200: schemas.CampaignPage,
            304: NOT_MODIFIED,
            **problems(Code.INVALID),
        },
        tags=["campaigns"],
    )
    def get(self, request: Request) -> Response:
        page = paginate(
            request,
            selectors.campaigns_live(self.caller(request).client_app_id),
            keys=["-created_at", "-id"],
            item=shapes.campaign,
        )
        return conditional(request, page)


class CampaignDetail(ParticipantView):
    @extend_schema(
        operation_id="campaigns_retrieve",
        summary="A campaign with its rules and packets",
        parameters=[IF_NONE_MATCH],
        responses={200: A_CAMPAIGN, 304: NOT_MODIFIED},
        tags=["campaigns"],
    )
    def get(self, request: Request, slug: str) -> Response:
        campaign = selectors.campaign_visible(slug, self.caller(request).client_app_id)
        if campaign is None:
            raise ProblemError(404, Code.NOT_FOUND, "There is no such campaign.")
        return conditional(request, shapes.campaign(campaign))


class ServerTickets(APIView):
    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [HasScope("tickets")]

    @extend_schema(
        operation_id="server_tickets_create",
        summary="A ticket for one of your users: a right to one claim of a packet",
        description=(
            "Ask again with the same `id` and the same body as often as you like: the ticket is "
            "one. With another body the same `id` is refused (422). 409: the packet is closed."
        ),
        request=schemas.TicketBody,
        responses={
            200: schemas.Ticket,
            **problems(Code.MISSING_SCOPE, Code.NOT_FOUND, Code.CONFLICT),
        },
        tags=["server"],
    )
    def post(self, request: Request, slug: str) -> Response:
        body = parse_body(request, schemas.TicketBody)
        caller = request.user
        assert isinstance(caller, ApiCaller)
        campaign = selectors.campaign_visible(slug, caller.client_app_id)
        if campaign is None:
            raise ProblemError(404, Code.NOT_FOUND, "There is no such campaign.")
        packet_id = parse_hex_id(body.packet)
        if packet_id is None or not campaign.links.filter(packet=packet_id).exists():
            raise ProblemError(404, Code.NOT_FOUND, "The campaign has no such packet.")
        if body.id.startswith(OWN_KEYS):
            raise ServiceError("id", "reserved", _("This id is reserved."))
        try:
            ticket = ticket_issue(
                packet_id=packet_id,
                client_app_id=caller.client_app_id,
                subject=body.user,
                key=body.id,
                reason=body.reason,
            )
        except TransitionRefused:
            raise
        except ServiceError as refusal:
            named = {"key": "id", "subject": "user"}.get(refusal.field, refusal.field)
            raise ServiceError(named, refusal.code, refusal.message) from refusal
        return Response(schemas.Ticket(ticket=ticket), headers={"Cache-Control": "no-store"})
