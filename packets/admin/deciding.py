"""The second person's page: what was asked for and by whom; then yes, or no with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import stamp
from engine.lib.errors import ServiceError
from engine.staff.confirm import REASON_MAX_CHARS, Consequence, MoneyForm
from engine.staff.pages import page, user_of
from packets.models.deciding import Decision


@dataclass(frozen=True)
class Asked:
    """A request, what saying yes does, and the services behind the three answers."""

    row: Decision
    about: str
    title: str
    consequence: Consequence
    permission: str  # to decide
    approve: Callable[[], Any]
    reject: Callable[[str], Any]
    withdraw: Callable[[], Any]
    back: str


class YesForm(MoneyForm):
    """The password, where it wasn't typed just now."""


class NoForm(MoneyForm):
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=REASON_MAX_CHARS)


def decide(request: HttpRequest, asked: Asked) -> HttpResponse:
    """Whoever may see the object may read this; only a second person gets the buttons."""
    user = user_of(request)
    own = user.pk == asked.row.requested_by_id
    post = request.POST if request.method == "POST" else None
    then = post.get("then", "") if post is not None else ""
    may = user.has_perm(asked.permission)
    if post is not None and not (may or (own and then == "withdraw")):
        raise PermissionDenied
    yes = YesForm(post if then == "approve" else None, request=request)
    no = NoForm(post if then == "reject" else None, request=request, money=False)
    run: Callable[[], Any] | None = None
    if then == "approve" and yes.is_valid():
        run = asked.approve
    elif then == "reject" and no.is_valid():
        run = lambda: asked.reject(no.cleaned_data["reason"])  # noqa: E731
    elif then == "withdraw":
        run = asked.withdraw
    if run is not None:
        try:
            run()
        except ServiceError as refusal:
            if then == "withdraw":  # it has no form that could carry the words
                messages.error(request, refusal.message)
            else:
                (no if then == "reject" else yes).add_error(None, refusal.message)
        else:
            messages.success(request, _("Done."))
            return HttpResponseRedirect(asked.back)
    pending = asked.row.state == Decision.State.PENDING
    return page(
        request,
        "packets/decide.html",
        asked.title,
        status=422 if post is not None else 200,
        asked=asked.row,
        about=asked.about,
        consequence=asked.consequence,
        asked_at=stamp(asked.row.requested_at),
        yes=yes,
        no=no,
        own=own,
        pending=pending,
        may=may and pending and not own,
        back=asked.back,
    )
