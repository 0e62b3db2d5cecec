from __future__ import annotations

from django.urls import path

from campaign.api.views import CampaignDetail, CampaignList, ServerTickets

urlpatterns = [
    path("campaigns", CampaignList.as_view()),
    path("campaigns/<str:slug>", CampaignDetail.as_view()),
    path("server/campaigns/<str:slug>/tickets", ServerTickets.as_view()),
]
