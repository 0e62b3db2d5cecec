"""GET /ops/invariants: what must be true of the money, asked now, from one snapshot."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from engine.lib.auth import ApiKeyAuthentication, HasScope
from engine.lib.openapi import problems
from engine.lib.problem import Code, unavailable
from packets import invariants
from packets.api import schemas, shapes


class OpsInvariants(APIView):
    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [HasScope("ops")]

    @extend_schema(
        operation_id="ops_invariants_retrieve",
        summary="Every checkable invariant with its value and verdict, from one snapshot",
        responses={
            200: OpenApiResponse(schemas.Invariants, description="All of them hold."),
            **problems(Code.MISSING_SCOPE),
            500: OpenApiResponse(schemas.Invariants, description="At least one is broken."),
        },
        tags=["ops"],
    )
    def get(self, request: Request) -> Response:
        try:
            report = invariants.invariants_check()
        except invariants.AuditUnfinished as late:
            raise unavailable(
                "The checks were not done in time; run `manage.py audit_money`."
            ) from late
        return Response(
            shapes.invariants(report),
            status=200 if report.holds else 500,
            headers={"Cache-Control": "no-store"},
        )
