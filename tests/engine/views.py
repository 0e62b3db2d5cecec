"""A small API of the kernel's tests: one route for each thing that the kernel promises."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path
from msgspec import Meta
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from engine.lib.auth import ApiKeyAuthentication, HasScope
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.health import healthz, readyz
from engine.lib.idempotency import IdempotencyKeySpent, idempotent
from engine.lib.pages import paginate
from engine.lib.problem import ProblemError
from engine.lib.schema import Body, parse_body
from engine.models import ClientApp


class Line(Body):
    quantity: int


class Order(Body):
    amount_fen: Annotated[int, Meta(ge=1, le=1000)]
    name: Annotated[str, Meta(min_length=1, max_length=8)] = "x"
    lines: list[Line] = []


class Who(APIView):
    def get(self, request: Request) -> Response:
        caller: Any = request.user
        return Response({"subject": caller.subject, "app": caller.client_app_id})


class Ops(APIView):
    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [HasScope("ops")]

    def get(self, request: Request) -> Response:
        caller: Any = request.user
        return Response({"app": caller.client_app_id})


class Orders(APIView):
    permission_classes = [AllowAny]
    authentication_classes: list[Any] = []

    def post(self, request: Request) -> Response:
        return Response({"amount_fen": parse_body(request, Order).amount_fen})


class Apps(APIView):
    permission_classes = [AllowAny]
    authentication_classes: list[Any] = []

    def get(self, request: Request) -> Response:
        return Response(
            paginate(request, ClientApp.objects.all(), keys=["-slug"], item=lambda app: app.slug)
        )


class Raises(APIView):
    """Raises what the test put here."""

    permission_classes = [AllowAny]
    authentication_classes: list[Any] = []
    error: Exception = RuntimeError("unset")

    def get(self, request: Request) -> Response:
        raise self.error


def plain_raises(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a secret inside a trace")


class Payments(APIView):
    """Moves money in a table of its own: one row per payment, the key unique for ever."""

    # What the next runs do: pay, or something that must not be stored.
    behaviour = "pay"
    during: Any = None
    guard = True

    @idempotent
    def post(self, request: Any) -> Response:
        order = parse_body(request, Order)
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO test_payment (id, principal, key, amount_fen) VALUES (%s, %s, %s, %s)"
                + (" ON CONFLICT (principal, key) DO NOTHING" if self.guard else ""),
                [uuid.uuid4(), request.user.principal, request.idempotency_key, order.amount_fen],
            )
            if cursor.rowcount == 0:
                raise IdempotencyKeySpent
        if Payments.during is not None:
            Payments.during()
        if self.behaviour == "conflict":
            raise TransitionRefused("the wallet", "frozen", ("open",))
        if self.behaviour == "limit":
            raise ProblemError(429, "rate_limited", "slow down", headers={"Retry-After": "7"})
        if self.behaviour == "crash":
            raise RuntimeError("boom")
        if self.behaviour == "poor":
            raise ServiceError("amount_fen", "insufficient", "not enough money")
        return Response({"paid_fen": order.amount_fen}, status=201)


urlpatterns = [
    path("api/v1/who", Who.as_view()),
    path("api/v1/ops", Ops.as_view()),
    path("api/v1/orders", Orders.as_view()),
    path("api/v1/apps", Apps.as_view()),
    path("api/v1/raises", Raises.as_view()),
    path("api/v1/plain-raises", plain_raises),
    path("admin/raises", plain_raises),
    path("api/v1/payments", Payments.as_view()),
    path("healthz", healthz),
    path("readyz", readyz),
]
