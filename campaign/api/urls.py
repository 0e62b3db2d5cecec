from __future__ import annotations

from django.urls import path

from campaign.api.views import CampaignDetail, CampaignList

urlpatterns = [
    path("campaigns", CampaignList.as_view()),
    path("campaigns/<str:slug>", CampaignDetail.as_view()),
]
