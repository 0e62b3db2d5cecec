from __future__ import annotations

from django.urls import path, re_path

from referrals.sharing import views

urlpatterns = [
    path("<str:code>", views.share_page),
    path("<str:code>/complaint", views.share_complaint),
    re_path(r"^(?P<code>[^/]+)/(?P<kind>qr\.svg|qr\.png|poster\.svg)$", views.share_picture),
]
