"""What the stories of webhooks share: an app, its endpoints, and a receiver."""

from __future__ import annotations

from collections.abc import Sequence

from engine.lib import crypto
from engine.models import ClientApp, EventKind, WebhookEndpoint

SECRET = b"0123456789abcdef0123456789abcdef"


def make_app(slug: str) -> ClientApp:
    return ClientApp.objects.create(slug=slug, name=slug.title())


def make_endpoint(
    app: ClientApp,
    *,
    url: str = "https://a.example/hooks",
    kinds: Sequence[EventKind] = (EventKind.PAYOUT_PAID,),
    state: WebhookEndpoint.State = WebhookEndpoint.State.ACTIVE,
) -> WebhookEndpoint:
    return WebhookEndpoint.objects.create(
        client_app=app,
        url=url,
        kinds=[kind.value for kind in kinds],
        state=state,
        secret_encrypted=crypto.encrypt(SECRET),
    )
