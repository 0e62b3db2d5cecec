"""POST /server/tokens: an app's back end gets a client token for one of its people."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from msgspec import UNSET
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from engine.api.schemas import Token, TokenBody
from engine.lib.auth import MAX_TTL_S, ApiCaller, ApiKeyAuthentication, HasScope
from engine.lib.openapi import problems
from engine.lib.problem import Code
from engine.lib.schema import parse_body
from engine.services import mint_client_token


class ServerTokens(APIView):
    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [HasScope("tokens")]

    @extend_schema(
        operation_id="server_tokens_create",
        summary="A client token for one of your users",
        request=TokenBody,
        responses={200: Token, **problems(Code.MISSING_SCOPE)},
        tags=["server"],
    )
    def post(self, request: Request) -> Response:
        body = parse_body(request, TokenBody)
        caller = request.user
        assert isinstance(caller, ApiCaller)
        token = mint_client_token(
            client_app_id=caller.client_app_id,
            subject=body.user,
            device="" if body.device is UNSET else body.device,
            group="" if body.group is UNSET else body.group,
            is_new=None if body.new is UNSET else body.new,
            account_age_days=None if body.account_age_days is UNSET else body.account_age_days,
            ttl_s=MAX_TTL_S if body.ttl_s is UNSET else body.ttl_s,
        )
        return Response(Token(token=token), headers={"Cache-Control": "no-store"})
