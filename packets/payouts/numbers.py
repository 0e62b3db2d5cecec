"""Numbers under which a provider knows a payout, and the exact request behind each.

Invariant 8: a payout has at most one live number. It is committed, with its request, before the
first call; the partial unique index and the trigger of `packets/sql/payouts.sql` stand behind it.

A number follows from the payout and how many it had before. So books that were restored from a
backup ask a provider about, and send, what they would have sent before: it knows the number.
"""

from __future__ import annotations

import hashlib
import json

from django.conf import settings
from django.db.models.functions import Now

from engine.lib.crypto import decrypt, encrypt
from packets.models import Payout, PayoutNumber, ProviderAccount
from packets.providers.base import Order, Provider

REMARK = "Laisee"


def number_live(payout: Payout, provider: Provider) -> PayoutNumber:
    """The live number, or a new one where there is none. Inside the caller's transaction.

    ValueError where the provider can't be asked for this at all.
    """
    number = PayoutNumber.objects.filter(payout=payout, state=PayoutNumber.State.LIVE).first()
    if number is not None:
        return number
    name = number_name(payout, payout.numbers.count())
    request = provider.request(_order(payout, name))
    return PayoutNumber.objects.create(
        payout=payout,
        number=name,
        request_encrypted=encrypt(request),
        request_sha256=hashlib.sha256(request).hexdigest(),
    )


def number_name(payout: Payout, before: int) -> str:
    """32 lower-case hexadecimal digits: what every provider takes."""
    return hashlib.sha256(f"{payout.id.hex}:{before}".encode()).hexdigest()[:32]


def number_end(number_id: int, state: str) -> None:
    PayoutNumber.objects.filter(id=number_id, state=PayoutNumber.State.LIVE).update(
        state=state, ended_at=Now()
    )


def request_of(number: PayoutNumber) -> bytes:
    """The bytes as they were committed; a request that isn't the committed one is never sent."""
    request = decrypt(number.request_encrypted)
    if hashlib.sha256(request).hexdigest() != number.request_sha256:
        raise ValueError(f"the request under number {number.number} isn't the one it was made with")
    return request


def payee_encrypt(account: str, name: str) -> str:
    """What a payout keeps of its payee."""
    return encrypt(json.dumps({"account": account, "name": name}).encode())


def payee_of(payout: Payout) -> tuple[str, str]:
    """(account, name) as the person gave them."""
    payee = json.loads(decrypt(payout.payee_encrypted))
    return payee["account"], payee["name"]


def notify_url(account: ProviderAccount) -> str:
    return f"{settings.BASE_URL.rstrip('/')}/api/v1/payouts/{account.name}/callback"


def _order(payout: Payout, number: str) -> Order:
    account, name = payee_of(payout)
    return Order(
        out_number=number,
        amount_fen=payout.amount_fen,
        currency=payout.currency,
        payee_account=account,
        payee_name=name,
        remark=REMARK,
        notify_url=notify_url(payout.account),
    )
