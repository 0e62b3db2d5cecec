"""Where payout providers tell us that something happened to an order.

Nobody signs in here: the provider's signature, over the body's bytes as they arrived, is all that
is believed, and it is looked at before the body is. What a genuine callback says moves no money; it
makes us ask (`packets/payouts/callbacks.py`). So its age doesn't matter: one that was held up for a
day, or is sent twice, or after a newer one, costs a question.
"""

from __future__ import annotations

from typing import Any

import structlog
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from engine.lib import counters
from engine.lib.crypto import UnreadableSecret
from engine.lib.openapi import problems
from engine.lib.problem import Code, ProblemError, unavailable
from engine.lib.renderers import too_large
from packets.models import ProviderAccount
from packets.payouts.callbacks import callback_receive
from packets.providers import callback_answer
from packets.providers.base import BadCallback, CredentialsMissing

log = structlog.get_logger(__name__)

MAX_CALLBACK_BYTES = 64 * 1024  # the largest that a provider sends is about four


class PayoutCallback(APIView):
    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """A provider says what it likes about what it accepts, and gets what it documents."""
        renderer = self.get_renderers()[0]
        return renderer, renderer.media_type

    @extend_schema(
        operation_id="payouts_callback",
        summary="A payout provider's callback",
        description=(
            "For the provider of the account that is named: up to 64 KB, in whatever form it "
            "sends. The signature is verified over the body as it arrived. The answer is what that "
            "provider takes for an acknowledgement. An order that isn't ours is acknowledged too."
        ),
        request=None,
        responses={
            (200, "application/json"): OpenApiResponse(
                OpenApiTypes.OBJECT, description="Taken note of."
            ),
            (200, "text/plain"): OpenApiResponse(OpenApiTypes.STR, description="Taken note of."),
            **problems(Code.BAD_SIGNATURE, Code.TOO_LARGE),
        },
        tags=["payouts"],
    )
    def post(self, request: Request, provider: str) -> HttpResponse:
        account = ProviderAccount.objects.filter(name=provider).first()
        if account is None:
            raise ProblemError(404, Code.NOT_FOUND, "There is no such provider account.")
        raw = _body(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            ours = callback_receive(account=account, headers=headers, raw=raw)
        except BadCallback as forged:
            counters.count(f"callback:{account.name}:refused")
            log.warning("callback_refused", account=account.name, why=str(forged))
            raise ProblemError(
                401,
                Code.BAD_SIGNATURE,
                "This is not signed as the provider signs.",
                headers={"WWW-Authenticate": "Signature"},
            ) from forged
        except (CredentialsMissing, UnreadableSecret) as broken:
            log.error("callback_unverifiable", account=account.name, why=str(broken))
            raise unavailable("The account's keys can't be used now; send it again.") from broken
        counters.count(f"callback:{account.name}:{'taken' if ours else 'unknown'}")
        content_type, content = callback_answer(account.kind)
        return HttpResponse(content, content_type=content_type)


def _body(request: Request) -> bytes:
    """As it arrived: nothing has read it, decoded it or looked for a form in it."""
    raw: bytes = request._request.read(MAX_CALLBACK_BYTES + 1)
    if len(raw) > MAX_CALLBACK_BYTES:
        raise too_large(MAX_CALLBACK_BYTES)
    return raw
