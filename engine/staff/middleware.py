"""Under /admin: knows second factors and the age of a session; holds back who is half inside."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django_otp.middleware import OTPMiddleware

from engine.lib.middleware import is_page
from engine.staff import second_factor, sessions

GetResponse = Callable[[HttpRequest], HttpResponseBase]
# What somebody may see whose log-in isn't complete yet.
OPEN_PATHS = (
    "/static/", "/admin/login/", "/admin/logout/", "/admin/second-factor/", "/admin/language",
    "/admin/jsi18n/",
)  # fmt: skip


class AdminSecondFactor:
    """`request.user.is_verified()`; and without it, for who needs it, one page only."""

    def __init__(self, get_response: GetResponse) -> None:
        self.inner = OTPMiddleware(self._held_back)
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if is_page(request.path_info):
            response: HttpResponseBase = self.inner(request)
            return response
        return self.get_response(request)

    def _held_back(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        if path.startswith(OPEN_PATHS) or not request.user.is_authenticated:
            return self.get_response(request)
        if sessions.is_over(request):
            logout(request)
            return _to("admin:login", request)
        # The device is looked up once more on each request: a revoked one holds nobody logged in.
        if not request.user.is_verified() and (  # type: ignore[attr-defined]
            second_factor.is_needed(request.user)
            or second_factor.device_of(request.user) is not None
        ):
            return _to("second_factor", request)
        return self.get_response(request)


def _to(name: str, request: HttpRequest) -> HttpResponseRedirect:
    query = urlencode({"next": request.get_full_path()})
    return HttpResponseRedirect(f"{reverse(name)}?{query}")
