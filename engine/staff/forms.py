"""The log-in form of the admin: name, password, and the code of a second factor for who has one."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _
from unfold.forms import AuthenticationForm
from unfold.widgets import UnfoldAdminTextInputWidget

from engine.staff import second_factor


def code_field(**options: Any) -> forms.CharField:
    return forms.CharField(
        label=_("One-time code"),
        max_length=10,
        widget=UnfoldAdminTextInputWidget(
            attrs={"autocomplete": "one-time-code", "inputmode": "numeric", "placeholder": "000000"}
        ),
        **options,
    )


WRONG_CODE = _("This code is wrong, used already, or too old. Wait for the next one.")


class LoginForm(AuthenticationForm):
    """A wrong code is no log-in, and says so beside the code."""

    code = code_field(
        required=False, help_text=_("From the app on your phone, if you have set one up.")
    )

    def get_invalid_login_error(self) -> ValidationError:
        if getattr(self.request, "axes_locked_out", False):
            return ValidationError(
                _("Too many failed log-ins. Try again in a quarter of an hour."), code="locked"
            )
        return super().get_invalid_login_error()

    def confirm_login_allowed(self, user: Any) -> None:
        super().confirm_login_allowed(user)
        device = second_factor.device_of(user)
        if device is None or not isinstance(user, User):
            return
        code = str(self.cleaned_data.get("code") or "").strip()
        if not code:
            raise ValidationError({"code": ValidationError(_("Your code is missing."), "required")})
        if not device.verify_token(code):
            raise ValidationError({"code": ValidationError(WRONG_CODE, "wrong_code")})
        # `login` reads this and remembers the device in the session.
        user.otp_device = device  # type: ignore[attr-defined]


class CodeForm(forms.Form):
    """One code, for a device that is set up or being set up."""

    code = code_field()
