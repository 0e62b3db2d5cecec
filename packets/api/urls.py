from __future__ import annotations

from django.urls import path

from packets.api.views import callbacks, holds, me, ops, packets, sending, withdrawals

urlpatterns = [
    path("packets", sending.Packets.as_view()),
    path("packets/<str:packet_id>", packets.PacketDetail.as_view()),
    path("packets/<str:packet_id>/claims", packets.PacketClaims.as_view()),
    path("packets/<str:packet_id>/proof", packets.PacketProof.as_view()),
    path("me/claims", me.MyClaims.as_view()),
    path("me/wallet", me.MyWallet.as_view()),
    path("me/wallet/transfers", me.MyTransfers.as_view()),
    path("me/holds", holds.MyHolds.as_view()),
    path("me/holds/<str:hold_id>/appeal", holds.MyHoldAppeal.as_view()),
    path("me/withdrawals", withdrawals.Withdrawals.as_view()),
    path("me/withdrawals/<str:withdrawal_id>", withdrawals.Withdrawal.as_view()),
    path("me/withdrawals/<str:withdrawal_id>/cancel", withdrawals.WithdrawalCancel.as_view()),
    path("payouts/<slug:provider>/callback", callbacks.PayoutCallback.as_view()),
    path("ops/invariants", ops.OpsInvariants.as_view()),
]
