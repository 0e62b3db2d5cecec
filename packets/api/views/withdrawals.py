"""Money out of one's own wallet: asked for, looked at, taken back as long as nothing was sent."""

from __future__ import annotations

import uuid
from typing import NoReturn

from drf_spectacular.utils import OpenApiResponse, extend_schema
from msgspec import UNSET
from rest_framework.request import Request
from rest_framework.response import Response

from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.idempotency import KEY_PARAMETER, KEY_PROBLEMS, idempotent
from engine.lib.ids import parse_hex_id
from engine.lib.openapi import problems
from engine.lib.pages import PAGE_PARAMETERS, paginate
from engine.lib.problem import Code, FieldError, ProblemError, invalid
from engine.lib.schema import parse_body
from packets.api import payout_schemas as schemas
from packets.api.views.base import ParticipantView
from packets.payouts import withdrawals

NO_STORE = {"Cache-Control": "no-store"}
# The service's names of what the body has elsewhere.
POINTERS = {"payee_account": "/payee/account", "payee_name": "/payee/name"}


def no_withdrawal() -> NoReturn:
    """The same answer whether there is none or it is somebody else's."""
    raise ProblemError(404, Code.NOT_FOUND, "There is no such withdrawal.")


def _id_of(text: str) -> uuid.UUID:
    found = parse_hex_id(text)
    return found if found is not None else no_withdrawal()


class Withdrawals(ParticipantView):
    @extend_schema(
        operation_id="me_withdrawals_create",
        summary="Take money out of your wallet",
        description=(
            "The money leaves the wallet with this answer and is paid by and by; it comes back if "
            "the withdrawal fails. 422 with nothing moved, by `errors[].code`: "
            "`insufficient_funds`, `out_of_range`, `not_available`, `unknown_choice`, "
            "`not_payable`, `outside_hours`, `day_count_reached`, `day_limit_reached`, "
            "`full_today`."
        ),
        parameters=[KEY_PARAMETER],
        request=schemas.WithdrawalBody,
        responses={
            201: OpenApiResponse(schemas.Withdrawal, description="Taken out, and on its way."),
            **problems(*KEY_PROBLEMS),
        },
        tags=["me"],
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = parse_body(request, schemas.WithdrawalBody)
        caller = self.caller(request)
        # Asked before any lock is held: it counts what waits.
        eta_s = withdrawals.eta_new_s(provider=body.provider, participant=caller.participant)
        try:
            payout = withdrawals.payout_create(
                participant=caller.participant,
                client_app_id=caller.client_app_id,
                amount_fen=body.amount_fen,
                provider=body.provider,
                payee_account=body.payee.account,
                payee_name="" if body.payee.name is UNSET else body.payee.name,
                key=request.idempotency_key,  # type: ignore[attr-defined]
            )
        except ServiceError as refusal:
            if refusal.field not in POINTERS:
                raise
            raise invalid(
                FieldError(POINTERS[refusal.field], refusal.code, refusal.message),
                detail=refusal.message,
            ) from refusal
        eta_s = None if payout.manual_reason else eta_s
        return Response(schemas.withdrawal(payout, eta_s), status=201, headers=NO_STORE)

    @extend_schema(
        operation_id="me_withdrawals_list",
        summary="Your withdrawals, newest first",
        parameters=PAGE_PARAMETERS,
        responses={200: schemas.WithdrawalPage, **problems(Code.INVALID)},
        tags=["me"],
    )
    def get(self, request: Request) -> Response:
        page = paginate(
            request,
            withdrawals.payouts_of(self.caller(request).participant),
            keys=["-created_at", "-id"],
            item=schemas.withdrawal_item,
        )
        return Response(page, headers=NO_STORE)


class Withdrawal(ParticipantView):
    @extend_schema(
        operation_id="me_withdrawals_retrieve",
        summary="One of your withdrawals",
        responses={200: schemas.Withdrawal},
        tags=["me"],
    )
    def get(self, request: Request, withdrawal_id: str) -> Response:
        mine = withdrawals.payouts_of(self.caller(request).participant)
        payout = mine.filter(id=_id_of(withdrawal_id)).first()
        if payout is None:
            no_withdrawal()
        return Response(schemas.withdrawal(payout, withdrawals.eta_s(payout)), headers=NO_STORE)


class WithdrawalCancel(ParticipantView):
    @extend_schema(
        operation_id="me_withdrawals_cancel_create",
        summary="Take a withdrawal back",
        description=(
            "Possible as long as it is `waiting` or in `review`; what waits for you "
            "(`user_action`) is cancelled at the provider, where it can do that, and is "
            "`cancelled` when the provider has said so. 409 otherwise."
        ),
        parameters=[KEY_PARAMETER],
        request=None,
        responses={200: schemas.Withdrawal, **problems(*KEY_PROBLEMS, Code.CONFLICT)},
        tags=["me"],
    )
    @idempotent
    def post(self, request: Request, withdrawal_id: str) -> Response:
        try:
            payout = withdrawals.payout_cancel(
                participant=self.caller(request).participant, payout_id=_id_of(withdrawal_id)
            )
        except TransitionRefused as late:
            # In this API's own words: our states have other names.
            raise ProblemError(
                409,
                Code.CONFLICT,
                "Only a withdrawal that is `waiting`, in `review` or waits for its owner can be "
                "taken back.",
            ) from late
        if payout is None:
            no_withdrawal()
        return Response(schemas.withdrawal(payout), headers=NO_STORE)
