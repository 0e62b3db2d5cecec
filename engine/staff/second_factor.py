"""Who needs a code besides the password, and the device that shows it.

Whoever moves money, decides over it or can change everybody's rights needs one. The device is a
TOTP application on a phone (RFC 6238); its secret is shown once, when it is set up.
"""

from __future__ import annotations

import base64

import segno
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.http import HttpRequest
from django_otp import login as remember_device
from django_otp.plugins.otp_totp.models import TOTPDevice

DEVICE_NAME = "phone"

AnyUser = User | AbstractBaseUser | AnonymousUser


def is_needed(user: AnyUser) -> bool:
    """Whether this person may do nothing without a second factor."""
    if not settings.REQUIRE_SECOND_FACTOR or not isinstance(user, User):
        return False
    return user.is_superuser or user.groups.filter(name__in=settings.SECOND_FACTOR_GROUPS).exists()


def device_of(user: AnyUser) -> TOTPDevice | None:
    """The device that is set up: whoever has one is asked, also where it isn't needed."""
    return TOTPDevice.objects.filter(user=user, confirmed=True).order_by("id").first()


def device_new(user: User) -> TOTPDevice:
    """The device being set up: the same on each look, until its first code confirms it."""
    device, _made = TOTPDevice.objects.get_or_create(
        user=user, confirmed=False, defaults={"name": DEVICE_NAME}
    )
    return device


def device_confirm(request: HttpRequest, device: TOTPDevice, code: str) -> bool:
    """Take the code; a right one confirms the device and verifies this session."""
    if not device.verify_token(code.strip()):
        return False
    if not device.confirmed:
        device.confirmed = True
        device.save(update_fields=["confirmed"])
    remember_device(request, device)
    return True


def secret_text(device: TOTPDevice) -> str:
    """The secret as it is typed into a phone: base32, in groups of four."""
    text = base64.b32encode(device.bin_key).decode().rstrip("=")
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def qr_svg(device: TOTPDevice) -> str:
    """The same as a picture for the phone's camera; made here, so that no other site sees it."""
    return segno.make(device.config_url, error="m").svg_inline(scale=5, border=3, light="white")
