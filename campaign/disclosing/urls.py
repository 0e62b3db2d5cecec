from __future__ import annotations

from django.urls import path

from campaign.disclosing import views

urlpatterns = [
    path("<str:slug>", views.disclosure),
    path("<str:slug>/<int:number>", views.disclosure),
]
