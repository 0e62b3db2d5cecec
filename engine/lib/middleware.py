"""What surrounds every request: an id, a log context, a body limit, and problems for bare errors.

`RequestContextMiddleware` stands outermost. It also makes `/x/` and `/x` one address, without a
redirect. The admin's own middlewares (sessions, CSRF, users, messages) are narrowed to its pages,
so that a claim does not pay for them.
"""

from __future__ import annotations

import ipaddress
import random
import re
import time
from collections.abc import Callable
from typing import Any, cast

import structlog
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseForbidden
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.locale import LocaleMiddleware
from django.utils import timezone, translation
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import get_supported_language_variant
from django.utils.translation.trans_real import parse_accept_lang_header

from engine.lib.logs import get_logger
from engine.lib.problem import CONTENT_TYPE, answer, from_status, response_of
from engine.lib.renderers import MAX_EVENTS_BODY_BYTES, MEDIA_TYPE, too_large

GetResponse = Callable[[HttpRequest], HttpResponseBase]

# Pages for people; every other path answers its errors as problems.
PAGES = ("/admin/", "/static/")
# Pages of people who have no session here; they say what is wrong themselves, in HTML.
OPEN_PAGES = ("/s/", "/d/", "/demo/")
# Asked by orchestrators under whatever address they know; they say nothing that a host could bend.
PROBES = ("/healthz", "/readyz")
# What the API says in words is for developers; a thread may still be in the last reader's language.
API_LANGUAGE = "en"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")

logger = get_logger("laisee.request")


def is_page(path: str) -> bool:
    return path.startswith(PAGES) or path == "/admin"


def request_id_from(header: str | None) -> str:
    """The caller's id where it is sane, else a new one."""
    if header and _REQUEST_ID.match(header):
        return header
    # Distinct, not secret. The system's randomness would cost a call that lets go of the
    # interpreter's lock, in the middle of ten thousand answers a second.
    return f"{random.getrandbits(128):032x}"


def client_ip_from(peer: str, forwarded_for: str, trusted_proxies: int) -> str:
    """The client's address: `trusted_proxies` entries of X-Forwarded-For, from the right, are ours.

    With none trusted the header is ignored: anybody may send one. The result is the empty text
    where what a proxy wrote is no address, so that nonsense shares one bucket of the limits.
    """
    if trusted_proxies <= 0:
        text = peer
    else:
        hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
        # Fewer entries than proxies: somebody came in by a shorter way; believe only the peer.
        text = hops[-trusted_proxies] if len(hops) >= trusted_proxies else peer
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return ""


def client_ip(request: Any) -> str:
    """The client's address for limits and the audit log."""
    request = getattr(request, "_request", request)
    known = getattr(request, "client_ip", None)
    if known is not None:
        return str(known)
    return client_ip_from(
        request.META.get("REMOTE_ADDR", ""),
        request.META.get("HTTP_X_FORWARDED_FOR", ""),
        settings.TRUSTED_PROXIES,
    )


def peer_of(request: Any) -> tuple[str, str]:
    """Who sent the request, and whom it was forwarded for: what `client_ip_from` judges."""
    meta = getattr(request, "_request", request).META
    return meta.get("REMOTE_ADDR", ""), meta.get("HTTP_X_FORWARDED_FOR", "")


def network_of(address: str) -> str:
    """The address cut to its /24 or /56: what may be written down of where somebody is.

    Logs are copied and the audit log can never be erased, so neither holds a whole address.
    """
    if not address:
        return ""
    prefix = 24 if ipaddress.ip_address(address).version == 4 else 56
    return str(ipaddress.ip_network(f"{address}/{prefix}", strict=False))


class RequestContextMiddleware:
    """Sets `request.request_id` and `request.client_ip`; see the module's docstring."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> HttpResponseBase:
        started = time.perf_counter()
        request.request_id = request_id_from(request.META.get("HTTP_X_REQUEST_ID"))
        request.client_ip = client_ip(request)
        path = request.path_info
        if path.endswith("/") and path != "/" and not is_page(path):
            request.path_info = path = path[:-1]
            request.path = request.path.removesuffix("/")
        # What an earlier request of this thread left bound is not this one's.
        structlog.contextvars.clear_contextvars()
        if not is_page(path):
            translation.activate(API_LANGUAGE)
        with structlog.contextvars.bound_contextvars(
            request_id=request.request_id, network=network_of(request.client_ip)
        ):
            response = self._guarded(request)
            if (
                response.status_code >= 400
                and not is_page(path)
                and not (path.startswith(OPEN_PAGES) and getattr(response, "is_page", False))
                # JSON was said by a view on purpose; Django's own error pages are HTML.
                and response.get("Content-Type", "") not in (CONTENT_TYPE, MEDIA_TYPE)
            ):
                response = response_of(
                    from_status(response.status_code, dict(response.items())), request
                )
            if not 200 <= response.status_code < 400:
                logger.info(
                    "request refused",
                    method=request.method,
                    path=path[:200],
                    status=response.status_code,
                    code=getattr(response, "problem_code", ""),
                    ms=round((time.perf_counter() - started) * 1000, 1),
                )
        response["X-Request-ID"] = request.request_id
        _give_length(response)
        return response

    def _guarded(self, request: HttpRequest) -> HttpResponseBase:
        # Finer limits are the parser's; this one keeps a huge upload from being read at all.
        if not is_page(request.path_info) and _content_length(request) > MAX_EVENTS_BODY_BYTES:
            return response_of(too_large(MAX_EVENTS_BODY_BYTES), request)
        if request.path_info not in PROBES:
            try:
                request.get_host()
            except DisallowedHost:
                return response_of(from_status(400), request)
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """A plain Django view failed; DRF's views have their own handler."""
        return None if is_page(request.path_info) else answer(exception, request)


def _give_length(response: HttpResponseBase) -> None:
    """A whole answer says how long it is; without that the server would send it in chunks."""
    if (
        isinstance(response, HttpResponse)  # a streamed one isn't
        and response.status_code not in (204, 304)  # which have no body to measure
        and not response.has_header("Content-Length")
    ):
        response["Content-Length"] = str(len(response.content))


def _content_length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


class _OnlyUnderAdmin(MiddlewareMixin):
    """Mixed into one of Django's middlewares: it works under /admin and is not there elsewhere."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if is_page(request.path_info):
            return cast(HttpResponseBase, super().__call__(request))
        return cast(HttpResponseBase, self.get_response(request))


class AdminSession(_OnlyUnderAdmin, SessionMiddleware):
    """Sessions, for the admin."""


def staff_language(request: HttpRequest) -> str:
    """What somebody chose, else the first of their browser's that we speak, else Chinese."""
    accepted = parse_accept_lang_header(request.META.get("HTTP_ACCEPT_LANGUAGE", ""))
    for code in (request.COOKIES.get(settings.LANGUAGE_COOKIE_NAME, ""), *(c for c, _ in accepted)):
        try:
            return get_supported_language_variant(code)
        except LookupError:
            continue
    return str(settings.STAFF_LANGUAGE)


class AdminLocale(_OnlyUnderAdmin, LocaleMiddleware):
    """The reader's language, for the admin; the API speaks one."""

    def process_request(self, request: Any) -> None:
        translation.activate(staff_language(request))
        request.LANGUAGE_CODE = translation.get_language()


class AdminTimezone:
    """The staff's time zone, for the admin's lists and filters; what is stored stays UTC."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not is_page(request.path_info):
            return self.get_response(request)
        with timezone.override(settings.STAFF_TIME_ZONE):
            return self.get_response(request)


class AdminUser(_OnlyUnderAdmin, AuthenticationMiddleware):
    """`request.user` of the session, for the admin."""


class AdminMessages(_OnlyUnderAdmin, MessageMiddleware):
    """One-time messages, for the admin."""


class AdminFrames(_OnlyUnderAdmin, XFrameOptionsMiddleware):
    """No framing of the admin's pages."""


class AdminCsrf(_OnlyUnderAdmin, CsrfViewMiddleware):
    """Forgery protection, for the admin; the API takes no cookies, so there is nothing to forge."""

    def process_view(
        self, request: HttpRequest, callback: Any, callback_args: Any, callback_kwargs: Any
    ) -> HttpResponseForbidden | None:
        if not is_page(request.path_info):
            return None
        return super().process_view(request, callback, callback_args, callback_kwargs)
