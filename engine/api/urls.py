from __future__ import annotations

from django.urls import path

from engine.api.views import ServerTokens

urlpatterns = [path("server/tokens", ServerTokens.as_view())]
