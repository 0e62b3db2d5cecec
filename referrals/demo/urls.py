from __future__ import annotations

from django.urls import path

from referrals.demo import views

urlpatterns = [
    path("app", views.app_page),
    path("me/<str:signed>", views.own_page),
]
