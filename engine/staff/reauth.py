"""The password again before money moves: a session left open on a desk must not be enough.

A password that was typed within the last minutes counts; logging in is typing it. Wrong ones count
for the lock-out like wrong log-ins, since `authenticate` is asked.
"""

from __future__ import annotations

import time

from django.contrib.auth import authenticate
from django.http import HttpRequest
from django.utils.translation import gettext as _

FRESH_S = 300  # a few acts in a row don't ask each time
SESSION_KEY = "laisee_password_at"


def password_confirmed(request: HttpRequest) -> None:
    """Remember that the password was typed just now."""
    request.session[SESSION_KEY] = int(time.time())


def password_is_fresh(request: HttpRequest) -> bool:
    typed_at = request.session.get(SESSION_KEY)
    return isinstance(typed_at, int) and 0 <= time.time() - typed_at < FRESH_S


def password_refusal(request: HttpRequest, password: str) -> str | None:
    """Why this password isn't the one of whoever is logged in; None: it is, and is fresh now."""
    user = authenticate(request, username=request.user.get_username(), password=password)
    if user is None or user.pk != request.user.pk:
        if getattr(request, "axes_locked_out", False):
            return _("Too many wrong passwords. Try again later.")
        return _("This is not your password.")
    password_confirmed(request)
    return None
