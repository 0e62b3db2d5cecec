"""The shapes of growth's API. The OpenAPI document is made from these."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.lib.schema import Body
from packets.api.schemas import Currency, Time


class ShareChannel(enum.StrEnum):
    """Where a link goes."""

    WECHAT = "wechat"
    MOMENTS = "moments"
    QQ = "qq"
    ALIPAY = "alipay"
    WEIBO = "weibo"
    SMS = "sms"
    FEED = "feed"
    OFFLINE = "offline"
    OTHER = "other"


class ShareVehicle(enum.StrEnum):
    """What carries it there: the link itself, the code in a text, a QR code, or a poster."""

    LINK = "link"
    TEXT = "text"
    QR = "qr"
    POSTER = "poster"


class ShareBody(Body):
    """Without a channel the link is for `other`."""

    channel: ShareChannel | UnsetType = UNSET


class ShareLink(msgspec.Struct, frozen=True, kw_only=True):
    """`vehicles`: the ways that are open in this channel now; use no other."""

    code: str
    url: str
    channel: ShareChannel
    vehicles: list[ShareVehicle]


Number = Annotated[int, Meta(ge=0)]


class ShareRewards(msgspec.Struct, frozen=True, kw_only=True):
    """Yours for friends who came by this link. `refused`: over your cap, or the budget was used
    up."""

    granted: Number
    granted_fen: Annotated[int, Meta(ge=0)]
    refused: Number
    currency: Currency


class ShareLinkState(enum.StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"


class OwnShareLink(msgspec.Struct, frozen=True, kw_only=True):
    campaign: str
    channel: ShareChannel
    code: str
    url: str
    state: ShareLinkState
    created_at: Time
    visits: Number
    joins: Number
    rewards: ShareRewards


class ShareLinkPage(msgspec.Struct, frozen=True, kw_only=True):
    results: list[OwnShareLink]
    next: str | None
