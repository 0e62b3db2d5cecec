"""A demo campaign that anyone can claim from, with the keys and people to do so.

Everything secret is derived from SECRET_KEY by HMAC, so that seeding twice gives the same answer
and nothing need be stored in the clear. Whatever has been used up (a packet with no portion left, a
campaign that was ended) is replaced by a fresh one, so that after seeding there is always a lucky
packet and a large pool to claim from.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group as DjangoGroup
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Q, Sum
from django_otp.plugins.otp_totp.models import TOTPDevice

from campaign import selectors, services
from campaign.channel_rules import acknowledgements
from campaign.convergence import campaign_converge
from campaign.models import Campaign, TopUp
from campaign.people import Group
from campaign.rules import PRIZE_CAP_FEN
from campaign.services.common import EDITABLE, RUNNING
from campaign.versions import version_hash
from engine.lib import auth, crypto
from engine.lib.clock import now
from engine.models import ApiKey, ClientApp, ClientKey
from packets.limit_rules import Wanted, limit_rule_set
from packets.models import Lane, LimitRule, Packet, ProviderAccount
from packets.providers import credentials_of
from packets.providers.sandbox.adapter import CAPABILITIES as SANDBOX

ACTOR = "system:seed_demo"
APP_SLUG = "demo"
CAMPAIGN_SLUG = "spring-festival"
SEED_WAIT_S = 120.0  # a first seed takes seconds, on a busy machine a minute
SEED_ASK_S = 0.2
CAMPAIGN_LENGTH = dt.timedelta(days=365)
# A campaign that ends sooner than this is replaced: a demo must not stop in the middle.
LEAST_LEFT = dt.timedelta(days=1)

PROVIDER_NAME = "sandbox"
STATEMENT_AFTER = dt.time(0, 30)  # of the next day; the sandbox has its statements at once
PACKET_NAME, PACKET_PORTIONS, PACKET_FEN = "packet", 1_000, 100_000  # ¥1,000 for a thousand people
POOL_NAME, POOL_PORTIONS, POOL_FEN, POOL_LANES = "pool", 1_000_000, 200_000_000, 16
# What an invitation brings, for two thousand friends: to the inviter, and to the friend.
REWARDED_FRIENDS = 2_000
REWARDS = {"inviter_packet": ("invite", 100), "invitee_packet": ("welcome", 50)}
REWARDS_FEN = REWARDED_FRIENDS * sum(fen for _name, fen in REWARDS.values())
LARGEST_FEN = 5_000  # nobody's luck is worth more than ¥50 here
TOTP_KEY_BYTES = 20  # 32 letters without padding: what authenticator apps expect
# What the budget holds beyond the first packet and pool: about fifty fresh packets.
SPARE_FEN = 50 * PACKET_FEN

# One of each: the campaign is written by the first and approved by the second.
STAFF = {
    "author": Group.OPERATIONS,
    "approver": Group.APPROVER,
    "finance": Group.FINANCE,
    "support": Group.SUPPORT,
    "sre": Group.SRE,
    "risk": Group.RISK,
}


# Anybody may be invited, however often they have played, and a crowd may open one link.
GROWTH: dict[str, Any] = {
    "is_on": True,
    "new_only": False,
    "inviter_cap": 1_000,
    "visits_per_link_hour": 100_000,
    "title_zh": "春节红包,人人有份",
    "title_en": "A red packet for the Spring Festival",
    "text_zh": "好友请你一起拆红包,两人都有奖励。",
    "text_en": "A friend invites you to open one; there is something for both of you.",
}

# (who is counted, how, limit, window in seconds, burst)
LIMITS = (
    (LimitRule.Subject.PARTICIPANT, LimitRule.Method.WINDOW, 1_000, 86_400, 0),
    (LimitRule.Subject.DEVICE, LimitRule.Method.WINDOW, 1_000, 86_400, 0),
    (LimitRule.Subject.IP, LimitRule.Method.PACE, 50_000, 1, 1_000_000),
    (LimitRule.Subject.SUBNET, LimitRule.Method.WINDOW, 10_000_000, 3_600, 0),
    (LimitRule.Subject.CAMPAIGN, LimitRule.Method.PACE, 100_000, 1, 1_000_000),
)


@dataclass(frozen=True)
class StaffMember:
    """Whoever needs a second factor finds it here too: as a secret and as an app's address."""

    username: str
    password: str
    group: str
    totp_secret: str | None = None
    otpauth: str | None = None


@dataclass(frozen=True)
class Demo:
    """What tools need to play with the demo; the field names are those of the printed JSON."""

    campaign: str
    packet: str
    pool: str
    api_key: str
    client_key: dict[str, str]
    staff: list[StaffMember]
    provider: str | None = None  # what a withdrawal names; None where no sandbox runs


def demo_seed() -> Demo:
    """Makes whatever of the demo is missing or used up. Two at once do it one after the other."""
    with _OneAtATime():
        app = _client_app()
        staff = [_staff(name, group) for name, group in STAFF.items()]
        campaign = _campaign(app)
        _limits(campaign)
        packet, pool = _packets(campaign)
        _growth(campaign)
        return Demo(
            campaign=campaign.slug,
            packet=packet.public_id,
            pool=pool.public_id,
            api_key=_api_key(app),
            client_key=_client_key(app),
            staff=staff,
            provider=_provider(app),
        )


class _OneAtATime:
    """A session lock of Postgres: seeding makes many short transactions, none can hold it.

    Asked for again and again instead of waited for: the application's time limit on locks is for
    claims, and the first seed of a slow machine takes longer.
    """

    KEY = int.from_bytes(b"ls:demo", "big")

    def __enter__(self) -> None:
        deadline = time.monotonic() + SEED_WAIT_S
        while not self._taken():
            if time.monotonic() > deadline:
                raise TimeoutError(f"another seed_demo has not finished within {SEED_WAIT_S:.0f} s")
            time.sleep(SEED_ASK_S)

    def _taken(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [self.KEY])
            return bool(cursor.fetchone()[0])

    def __exit__(self, *exc: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [self.KEY])


def _derived(purpose: str) -> bytes:
    """32 bytes that only a holder of SECRET_KEY can know, the same every time."""
    return hmac.new(
        settings.SECRET_KEY.encode(), f"laisee.demo:{purpose}".encode(), hashlib.sha256
    ).digest()


def _word(purpose: str, octets: int = 32) -> str:
    return base64.urlsafe_b64encode(_derived(purpose)[:octets]).decode().rstrip("=")


def _client_app() -> ClientApp:
    app, _ = ClientApp.objects.get_or_create(slug=APP_SLUG, defaults={"name": "Laisee Demo"})
    return app


def _campaign(app: ClientApp) -> Campaign:
    """The newest demo campaign that still runs and spreads; else a new one, launched."""
    mine = Campaign.objects.filter(slug__regex=rf"^{CAMPAIGN_SLUG}(-[0-9]+)?$", client_apps=app)
    campaign = (
        mine.filter(
            # One that was launched before there was growth can't begin to spread.
            Q(state__in=EDITABLE) | Q(state__in=RUNNING, growth__isnull=False),
            ends_at__gt=now() + LEAST_LEFT,
        )
        .order_by("-created_at")
        .first()
    )
    author, approver = _user("author"), _user("approver")
    if campaign is None:
        number = mine.count() + 1
        start = now() - dt.timedelta(minutes=1)
        campaign = services.campaign_create(
            slug=CAMPAIGN_SLUG if number == 1 else f"{CAMPAIGN_SLUG}-{number}",
            name_zh="春节红包",
            name_en="Spring Festival red packets",
            rules_zh="每人每个红包限领一次,金额随机,先到先得。",
            rules_en="One portion of each packet per person; amounts are random; first come, "
            "first served.",
            budget_fen=PACKET_FEN + POOL_FEN + REWARDS_FEN + SPARE_FEN,
            starts_at=start,
            ends_at=start + CAMPAIGN_LENGTH,
            client_apps=[app.pk],
            actor=ACTOR,
            created_by=author,
        )
    if campaign.state == Campaign.State.DRAFT:
        # Its packets come first: a campaign without any can't be approved.
        _packets(campaign)
        _growth(campaign)
        campaign = services.campaign_submit(campaign_id=campaign.pk, by=author)
    if campaign.state == Campaign.State.REVIEW:
        campaign = services.campaign_approve(
            campaign_id=campaign.pk, version_hash=version_hash(campaign), by=approver
        )
    if campaign.state == Campaign.State.SCHEDULED:
        return services.campaign_launch(campaign_id=campaign.pk, actor=ACTOR)
    if campaign.state == Campaign.State.PAUSED:
        return services.campaign_resume(campaign_id=campaign.pk, actor=ACTOR, reason="seed_demo")
    return campaign_converge(campaign_id=campaign.pk, actor=ACTOR)


def _limits(campaign: Campaign) -> None:
    """Limits of each kind, wide enough for a whole crowd from one address."""
    if LimitRule.objects.filter(gate=campaign.gate).exists():
        return
    for subject, method, limit, window_s, burst in LIMITS:
        limit_rule_set(
            wanted=Wanted(
                subject=subject,
                method=method,
                limit=limit,
                window_s=window_s,
                burst=burst,
                gate=campaign.gate,
                # Drills take Redis away, and the demo's claims are to go on.
                when_away=LimitRule.WhenAway.ALLOW,
                note="demo",
            ),
            actor=ACTOR,
        )


def _packets(campaign: Campaign) -> tuple[Packet, Packet]:
    return (
        _packet(campaign, PACKET_NAME, PACKET_FEN, PACKET_PORTIONS),
        _packet(campaign, POOL_NAME, POOL_FEN, POOL_PORTIONS, lane_count=POOL_LANES),
    )


def _growth(campaign: Campaign) -> None:
    """People may share, and rewards come from packets that still have a portion."""
    rewards: dict[str, Any] = {
        side: _packet(
            campaign, name, fen * REWARDED_FRIENDS, REWARDED_FRIENDS,
            strategy=Packet.Strategy.FIXED, needs_ticket=True,
        )
        for side, (name, fen) in REWARDS.items()
    }  # fmt: skip
    campaign.refresh_from_db()
    wanted = GROWTH if campaign.state in EDITABLE else {"is_on": True}
    services.growth_edit(
        campaign_id=campaign.pk, actor=ACTOR, by=_user("author"), **wanted, **rewards
    )
    unread = [one.rule for one in acknowledgements(campaign) if not one.is_current]
    if unread:
        services.channels_acknowledge(
            campaign_id=campaign.pk,
            versions={rule.channel.value: rule.version for rule in unread},
            by=_user("author"),
        )


def _packet(
    campaign: Campaign, name: str, total_fen: int, count: int, *, lane_count: int = 1, **cut: Any
) -> Packet:
    """The campaign's newest packet of this name that still has a portion; else a fresh one."""
    newest = (
        Packet.objects.filter(campaign_link__campaign=campaign, name=name)
        .exclude(state__in=(Packet.State.CLOSED, Packet.State.PAUSED))
        .order_by("-campaign_link__order")
        .first()
    )
    if newest is not None and not _exhausted(newest):
        return newest
    rules: dict[str, Any] = {
        "name": name,
        "strategy": Packet.Strategy.LUCKY,
        "total_fen": total_fen,
        "count": count,
        "lane_count": lane_count,
        # What chance gives must not exceed the legal ceiling in the unlikeliest draw either.
        "max_fen": LARGEST_FEN if total_fen > PRIZE_CAP_FEN else None,
        **cut,
    }
    campaign.refresh_from_db()
    if campaign.state in EDITABLE:
        return services.campaign_packet_add(
            campaign_id=campaign.pk, actor=ACTOR, by=_user("author"), **rules
        )
    _add_to_running(campaign, rules)
    return Packet.objects.filter(campaign_link__campaign=campaign, name=name).order_by(
        "-campaign_link__order"
    )[0]


def _add_to_running(campaign: Campaign, rules: dict[str, Any]) -> None:
    """A further packet the way staff add one: one asks, another approves."""
    needed_fen = selectors.campaign_committed_fen(campaign) + rules["total_fen"]
    for waiting in campaign.top_ups.filter(state=TopUp.State.PENDING):
        services.top_up_withdraw(top_up_id=waiting.pk, by=waiting.requested_by)
    short_fen = needed_fen - campaign.budget_fen
    top_up = services.top_up_request(
        campaign_id=campaign.pk,
        extra_fen=short_fen + SPARE_FEN if short_fen > 0 else 0,
        packets=[rules],
        reason="seed_demo",
        by=_user("author"),
    )
    services.top_up_approve(top_up_id=top_up.pk, by=_user("approver"))


def _exhausted(packet: Packet) -> bool:
    if packet.state == Packet.State.DRAFT:
        return False
    claimed = Lane.objects.filter(packet=packet).aggregate(n=Sum("claimed_count"))["n"] or 0
    return bool(claimed >= packet.count)


def _provider(app: ClientApp) -> str | None:
    """The account at the sandbox of this copy, whose address follows the copy's."""
    if not settings.SANDBOX_URL:
        return None
    secret = {"secret": settings.SANDBOX_SECRET}
    account, _ = ProviderAccount.objects.get_or_create(
        name=PROVIDER_NAME,
        defaults={
            "kind": ProviderAccount.Kind.SANDBOX,
            "min_fen": SANDBOX.min_fen,
            "max_fen": SANDBOX.max_fen,
            "client_apps": [app.pk],
            "statement_after": STATEMENT_AFTER,
        },
    )
    known = _readable(account.credentials_encrypted) and credentials_of(account) == secret
    if not known or account.base_url != settings.SANDBOX_URL:
        account.base_url = settings.SANDBOX_URL
        account.credentials_encrypted = crypto.encrypt(json.dumps(secret).encode())
        account.save(update_fields=["base_url", "credentials_encrypted", "changed_at"])
    return account.name


def _client_key(app: ClientApp) -> dict[str, str]:
    """The app's HS256 key; one that was revoked or whose ciphertext can't be read is renewed."""
    kid = f"demo-{_derived('kid').hex()[:12]}"
    secret = _word("client_key")
    row = ClientKey.objects.filter(kid=kid).first()
    if row is None or row.revoked_at is not None or not _readable(row.secret_encrypted):
        ClientKey.objects.update_or_create(
            kid=kid,
            defaults={
                "client_app": app,
                "alg": ClientKey.Algorithm.HS256,
                "secret_encrypted": crypto.encrypt(secret.encode()),
                "label": "demo",
                "revoked_at": None,
            },
        )
    return {"kid": kid, "secret": secret}


def _readable(stored: str) -> bool:
    try:
        crypto.decrypt(stored)
    except crypto.UnreadableSecret:
        return False
    return True


def _api_key(app: ClientApp) -> str:
    entropy = _derived("api_key:1") + _derived("api_key:2")
    key = auth.api_key_text(entropy[: auth.API_KEY_ENTROPY_BYTES])
    ApiKey.objects.update_or_create(
        prefix=auth.api_key_prefix(key),
        defaults={
            "client_app": app,
            "hash": auth.api_key_hash(key),
            "scopes": list(auth.scopes_known()),
            "name": "demo",
            "revoked_at": None,
            "expires_at": None,
        },
    )
    return key


def _user(name: str) -> User:
    return User.objects.get(username=f"demo-{name}")


def _staff(name: str, group_name: Group) -> StaffMember:
    password = _word(f"staff:{name}", 12)
    # A salt that nobody else would choose tells that the password is still this one, without the
    # fifth of a second that hashing takes.
    salt = _derived(f"salt:{name}").hex()[:32]
    with transaction.atomic():
        user, _made = User.objects.get_or_create(
            username=f"demo-{name}", defaults={"is_staff": True}
        )
        if f"${salt}$" not in user.password:
            user.password = make_password(password, salt)
            user.save(update_fields=["password"])
        user.groups.set([DjangoGroup.objects.get(name=group_name)])
        member = StaffMember(user.username, password, str(group_name))
        if group_name not in settings.SECOND_FACTOR_GROUPS:
            return member
        key = _derived(f"totp:{name}")[:TOTP_KEY_BYTES]
        device, _made = TOTPDevice.objects.get_or_create(
            user=user, key=key.hex(), defaults={"name": "demo", "confirmed": True}
        )
        # The oldest confirmed device is the one that is asked: let it be this one.
        TOTPDevice.objects.filter(user=user).exclude(pk=device.pk).delete()
    return dataclasses.replace(
        member, totp_secret=base64.b32encode(key).decode(), otpauth=device.config_url
    )
