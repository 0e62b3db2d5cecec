"""Share links: one for a person and channel, and what they have led to."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from msgspec import UNSET
from rest_framework.request import Request
from rest_framework.response import Response

from campaign import selectors as campaigns
from campaign.models import Channel
from engine.lib.clock import rfc3339
from engine.lib.middleware import peer_of
from engine.lib.openapi import problems
from engine.lib.pages import PAGE_PARAMETERS, paginate
from engine.lib.problem import Code, ProblemError
from engine.lib.schema import parse_body
from packets import sightings
from packets.api.views.base import ParticipantView
from referrals.api import link_schemas as schemas
from referrals.linking.links import SharingBlocked, SharingPaused, address_of, link_share
from referrals.linking.selectors import links_of

NO_STORE = {"Cache-Control": "no-store"}


class CampaignShareLinks(ParticipantView):
    @extend_schema(
        operation_id="campaigns_share_links_create",
        summary="Your share link of a campaign: the same for the same channel",
        description=(
            "Asking is sharing: where the campaign wants a pause between shares the answer is 429 "
            "with Retry-After until it has passed. 422 with the code `channel_off`: no way is open "
            "in this channel; `sharing_off`: nobody can share the campaign now; `sharing_stopped`: "
            "too many people complained. 403: your links were revoked."
        ),
        request=schemas.ShareBody,
        responses={
            200: schemas.ShareLink,
            **problems(Code.FORBIDDEN, Code.NOT_FOUND, Code.RATE_LIMITED),
        },
        tags=["growth"],
    )
    def post(self, request: Request, slug: str) -> Response:
        body = parse_body(request, schemas.ShareBody)
        caller = self.caller(request)
        campaign = campaigns.campaign_visible(slug, caller.client_app_id)
        if campaign is None:
            raise ProblemError(404, Code.NOT_FOUND, "There is no such campaign.")
        channel = Channel.OTHER if body.channel is UNSET else Channel(body.channel.value)
        try:
            shared = link_share(campaign=campaign, caller=caller, channel=channel)
        except SharingBlocked:
            raise ProblemError(
                403, Code.FORBIDDEN, "You can't share this campaign any more."
            ) from None
        except SharingPaused as pause:
            raise ProblemError(
                429,
                Code.RATE_LIMITED,
                f"You have shared just now. Try again in {pause.retry_after_s} s.",
                headers={
                    "Retry-After": str(pause.retry_after_s),
                    "RateLimit": f'"share";r=0;t={pause.retry_after_s}',
                    "RateLimit-Policy": f'"share";q=1;w={pause.pause_s}',
                },
            ) from None
        sightings.note(None, caller, *peer_of(request))
        return Response(
            schemas.ShareLink(
                code=shared.link.code,
                url=address_of(shared.link.code),
                channel=schemas.ShareChannel(shared.link.channel),
                vehicles=[schemas.ShareVehicle(vehicle) for vehicle in shared.vehicles],
            ),
            headers=NO_STORE,
        )


class MyShareLinks(ParticipantView):
    @extend_schema(
        operation_id="me_share_links_list",
        summary="Your share links with visits, joins and rewards, newest first",
        parameters=PAGE_PARAMETERS,
        responses={200: schemas.ShareLinkPage, **problems(Code.INVALID)},
        tags=["me"],
    )
    def get(self, request: Request) -> Response:
        page = paginate(
            request, links_of(self.caller(request).participant), keys=["-id"], item=_own
        )
        return Response(page, headers=NO_STORE)


def _own(link: Any) -> schemas.OwnShareLink:
    """`link` is a ShareLink with the numbers of `selectors.with_numbers`."""
    revoked = link.revoked_at is not None
    return schemas.OwnShareLink(
        campaign=link.campaign.slug,
        channel=schemas.ShareChannel(link.channel),
        code=link.code,
        url=address_of(link.code),
        state=schemas.ShareLinkState.REVOKED if revoked else schemas.ShareLinkState.ACTIVE,
        created_at=rfc3339(link.created_at),
        visits=link.visit_count,
        joins=link.join_count,
        rewards=schemas.ShareRewards(
            granted=link.reward_count,
            granted_fen=link.reward_fen,
            refused=link.refused_count,
            currency=link.campaign.currency,
        ),
    )
