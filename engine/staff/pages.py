"""Our own pages inside the admin's frame, for every room."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.template.response import TemplateResponse


def user_of(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def page(
    request: HttpRequest, template: str, title: Any, status: int = 200, **context: Any
) -> TemplateResponse:
    """One of our own pages inside the admin's frame."""
    request.current_app = admin.site.name
    return TemplateResponse(
        request,
        template,
        {**admin.site.each_context(request), "title": title, **context},
        status=status,
    )
