"""What belongs to the caller: claims, wallet, and its movements. There is no route to another's."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from engine.lib.money import CURRENCY
from engine.lib.openapi import problems
from engine.lib.pages import PAGE_PARAMETERS, paginate
from engine.lib.problem import Code
from packets import selectors
from packets.api import schemas, shapes
from packets.api.views.base import ParticipantView

NO_STORE = {"Cache-Control": "no-store"}


class MyClaims(ParticipantView):
    @extend_schema(
        operation_id="me_claims_list",
        summary="Your claims, newest first",
        parameters=PAGE_PARAMETERS,
        responses={200: schemas.ClaimPage, **problems(Code.INVALID)},
        tags=["me"],
    )
    def get(self, request: Request) -> Response:
        page = paginate(
            request,
            selectors.claims_of(self.caller(request).participant),
            keys=["-committed_at", "-id"],
            item=lambda claim: shapes.own_claim(selectors.own_claim(claim)),
        )
        return Response(page, headers=NO_STORE)


class MyWallet(ParticipantView):
    @extend_schema(
        operation_id="me_wallet_retrieve",
        summary="Your wallet",
        responses={200: schemas.Wallet},
        tags=["me"],
    )
    def get(self, request: Request) -> Response:
        balance = selectors.wallet_balance(self.caller(request).participant, CURRENCY)
        return Response(
            schemas.Wallet(
                available_fen=balance.available_fen,
                pending_fen=balance.pending_fen,
                held_fen=balance.held_fen,
                withdrawing_fen=balance.withdrawing_fen,
                currency=CURRENCY,
            ),
            headers=NO_STORE,
        )


class MyTransfers(ParticipantView):
    @extend_schema(
        operation_id="me_wallet_transfers_list",
        summary="The movements of your wallet, newest first",
        parameters=PAGE_PARAMETERS,
        responses={200: schemas.WalletTransferPage, **problems(Code.INVALID)},
        tags=["me"],
    )
    def get(self, request: Request) -> Response:
        participant = self.caller(request).participant
        page = paginate(
            request,
            selectors.wallet_transfers(participant, CURRENCY),
            keys=["-id"],
            item=lambda transfer: shapes.wallet_transfer(transfer, participant),
        )
        return Response(page, headers=NO_STORE)
