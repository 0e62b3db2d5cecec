"""How long a log-in holds: half an hour without use, and a working day at most.

Refreshing itself is not use: a page that polls (a board on a wall) sends `X-Background: 1` and
keeps nobody logged in.
"""

from __future__ import annotations

import time
from typing import Any

from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest

from engine.staff.reauth import password_confirmed

IDLE_S = 30 * 60
ABSOLUTE_S = 8 * 3600
SEEN_EVERY_S = 60  # so exact is the idle time: each click need not write the session
BEGAN, SEEN = "laisee_began_at", "laisee_seen_at"


def begin(sender: Any, request: HttpRequest, **_rest: Any) -> None:
    """On log-in: the clock starts, and the password has just been typed."""
    request.session[BEGAN] = request.session[SEEN] = int(time.time())
    password_confirmed(request)


user_logged_in.connect(begin, dispatch_uid="laisee.session")


def is_over(request: HttpRequest) -> bool:
    """Whether the session has lasted too long; else this request counts as use."""
    now = int(time.time())
    began = request.session.setdefault(BEGAN, now)
    seen = request.session.setdefault(SEEN, now)
    if now - began >= ABSOLUTE_S or now - seen >= IDLE_S:
        return True
    if request.headers.get("X-Background") != "1" and now - seen >= SEEN_EVERY_S:
        request.session[SEEN] = now
    return False
