from __future__ import annotations

from django.urls import path

from referrals.api import forest_views

urlpatterns = [
    path("campaigns/<str:slug>/referral", forest_views.CampaignReferral.as_view()),
    path("me/referrals", forest_views.MyReferrals.as_view()),
]
