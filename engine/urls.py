"""The web door's addresses. No address ends in a slash; the middleware makes `/x/` mean `/x`."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import include, path
from django.views.decorators.cache import cache_page
from django.views.i18n import set_language
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from engine.lib.health import healthz, readyz
from engine.staff.views import second_factor_page

# Seconds; the document changes with the code only, and making it takes longer than a claim.
SCHEMA_CACHE_S = 3600


def root(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/admin/")


urlpatterns = [
    path("", root),
    path("healthz", healthz),
    path("readyz", readyz),
    path("admin", root),
    path("admin/language", set_language, name="set_language"),
    path("admin/second-factor/", second_factor_page, name="second_factor"),
    path("admin/", admin.site.urls),
    path("api/schema", cache_page(SCHEMA_CACHE_S)(SpectacularAPIView.as_view()), name="schema"),
    path("api/docs", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("api/v1/", include("packets.api.urls")),
    path("api/v1/", include("campaign.api.urls")),
    path("api/v1/", include("referrals.api.urls")),
    path("api/v1/", include("engine.api.urls")),
    path("s/", include("referrals.sharing.urls")),
    path("d/", include("campaign.disclosing.urls")),
    path("demo/", include("referrals.demo.urls")),
]
