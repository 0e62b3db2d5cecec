"""Being invited, and whom one has invited."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from msgspec import UNSET
from rest_framework.request import Request
from rest_framework.response import Response

from campaign.selectors import campaign_visible
from engine.lib.middleware import peer_of
from engine.lib.openapi import problems
from engine.lib.pages import PAGE_PARAMETERS, paginate
from engine.lib.problem import Code, FieldCode, FieldError, ProblemError, invalid, unavailable
from engine.lib.schema import parse_body
from packets import sightings
from packets.api.views.base import ParticipantView
from referrals.api import forest_schemas as schemas
from referrals.forest import selectors
from referrals.forest.binding import BindResult, ForestBusy
from referrals.forest.joining import Lead, friend_join

NO_STORE = {"Cache-Control": "no-store"}


class CampaignReferral(ParticipantView):
    @extend_schema(
        operation_id="campaigns_referral_create",
        summary="Say who invited you",
        description=(
            "Send the click token of the share page, or the code that you typed, and with it the "
            "tokens of links that were opened earlier. Where several have led you here (codes of "
            "your claims among them), the first or the last counts, as the campaign has it: a link "
            "from when it was opened, a code from when it was typed or claimed with. You are bound "
            "once in a campaign, for ever: asking again, also with something else, says "
            "`already_bound`. `not_new`: the campaign is for people who have won nothing yet (or "
            "whom your token calls `new`). `expired`: the click is older than the campaign's "
            "window or was used by somebody else, or the campaign doesn't spread (any more)."
        ),
        request=schemas.ReferralBody,
        responses={
            200: schemas.ReferralAnswer,
            **problems(Code.NOT_FOUND, Code.UNAVAILABLE),
        },
        tags=["growth"],
    )
    def post(self, request: Request, slug: str) -> Response:
        body = parse_body(request, schemas.ReferralBody)
        if (body.code is UNSET) == (body.click_token is UNSET):
            raise invalid(
                FieldError("/code", FieldCode.INVALID, "Either a code or a click token, not both.")
            )
        caller = self.caller(request)
        campaign = campaign_visible(slug, caller.client_app_id)
        if campaign is None:
            raise ProblemError(404, Code.NOT_FOUND, "There is no such campaign.")
        lead = Lead(
            code=None if body.code is UNSET else body.code,
            click_token=None if body.click_token is UNSET else body.click_token,
            earlier_clicks=tuple(body.earlier_clicks),
        )
        try:
            result = friend_join(campaign=campaign, friend=caller, lead=lead)
        except ForestBusy:
            raise unavailable("Many people join this tree just now.") from None
        if result is BindResult.BOUND:
            sightings.note(None, caller, *peer_of(request))
        return Response(schemas.ReferralAnswer(result=result), headers=NO_STORE)


class MyReferrals(ParticipantView):
    @extend_schema(
        operation_id="me_referrals_list",
        summary="Whom you have invited, newest first, and what you earned by each",
        parameters=PAGE_PARAMETERS,
        responses={200: schemas.ReferralPage, **problems(Code.INVALID)},
        tags=["growth"],
    )
    def get(self, request: Request) -> Response:
        inviter = self.caller(request).participant
        page = paginate(
            request, selectors.referrals_by(inviter), keys=["-id"], item=lambda row: row
        )
        seen = selectors.friends(page["results"], inviter)
        page["results"] = [schemas.my_referral(friend) for friend in seen]
        return Response(page, headers=NO_STORE)
