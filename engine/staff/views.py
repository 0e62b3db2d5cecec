"""The page of the second factor: set one up, or give its code, before anything else is seen."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from engine.lib.audit import audit_record
from engine.staff import second_factor
from engine.staff.forms import WRONG_CODE, CodeForm


@never_cache
@sensitive_post_parameters()
def second_factor_page(request: HttpRequest) -> HttpResponse:
    user = request.user
    if not isinstance(user, User) or not user.is_staff:
        return HttpResponseRedirect(reverse("admin:login"))
    known = second_factor.device_of(user)
    device = known or second_factor.device_new(user)
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if second_factor.device_confirm(request, device, form.cleaned_data["code"]):
            if known is None:
                audit_record(
                    actor=f"staff:{user.get_username()}",
                    action="staff.second_factor",
                    object_type="user",
                    object_id=user.pk,
                    request=request,
                )
            return HttpResponseRedirect(_next(request))
        form.add_error("code", str(WRONG_CODE))
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": _("Second factor"),
        "form": form,
        "setting_up": known is None,
        "next": _next(request),
    }
    if known is None:
        context["secret"] = second_factor.secret_text(device)
        # Our own drawing of our own text: nothing of a reader's is in it.
        context["picture"] = mark_safe(second_factor.qr_svg(device))
    return TemplateResponse(request, "staff/second_factor.html", context)


def _next(request: HttpRequest) -> str:
    """Where the person wanted to go; nowhere outside of here."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    ours = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, request.is_secure())
    return wanted if ours and wanted.startswith("/admin/") else reverse("admin:index")


def locked_out(
    request: HttpRequest, response: HttpResponse | None, credentials: Any = None
) -> HttpResponse:
    """The log-in page as it is, with its words on the lock-out, under the status that says so."""
    if response is None:
        response = HttpResponse(_("Too many failed log-ins. Try again in a quarter of an hour."))
    response.status_code = 429
    response["Retry-After"] = "900"
    return response
