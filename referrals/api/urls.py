from __future__ import annotations

from django.urls import path

from referrals.api import events, forest_views, link_views

urlpatterns = [
    path("campaigns/<str:slug>/referral", forest_views.CampaignReferral.as_view()),
    path("campaigns/<str:slug>/share-links", link_views.CampaignShareLinks.as_view()),
    path("me/referrals", forest_views.MyReferrals.as_view()),
    path("me/share-links", link_views.MyShareLinks.as_view()),
    path("me/tickets", events.MyTickets.as_view()),
    path("server/events", events.ServerEvents.as_view()),
]
