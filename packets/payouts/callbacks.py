"""What a provider tells us by itself. It moves no money: a genuine callback makes us ask sooner.

So a replayed, late or reordered one costs a question, and a forged one that got past its signature
would cost no more.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from packets.models import Payout, PayoutCall, PayoutNumber, ProviderAccount
from packets.providers import provider_of

log = structlog.get_logger(__name__)

# Callbacks written down for one payout; a provider (or a replay) that sends more is still answered.
KEPT_PER_PAYOUT = 50


def callback_receive(*, account: ProviderAccount, headers: Mapping[str, str], raw: bytes) -> bool:
    """Verify, write down, make the payout due. False: no payout has this number.

    Raises BadCallback, before anything is read, for a signature that isn't the provider's.
    """
    event = provider_of(account).parse_callback(headers, raw)
    # A merchant's account may be used by others too; Postgres takes no NUL from them.
    ours = event.out_number.isascii() and event.out_number.isalnum()
    number = (
        PayoutNumber.objects.select_related("payout")
        .filter(number=event.out_number, payout__account=account)
        .first()
        if ours
        else None
    )
    if number is None:
        log.warning("callback_unknown", account=account.name, number=event.out_number[:64])
        return False
    with transaction.atomic():
        payout = Payout.objects.select_for_update(no_key=True).get(id=number.payout_id)
        calls = payout.calls.filter(kind=PayoutCall.Kind.CALLBACK)
        if len(calls.values_list("id")[:KEPT_PER_PAYOUT]) < KEPT_PER_PAYOUT:
            PayoutCall.objects.create(
                payout=payout,
                number=number,
                kind=PayoutCall.Kind.CALLBACK,
                fence=payout.fence,
                ended_at=Now(),
                code=event.event_id[:80],
            )
        if payout.is_terminal:
            return True
        Payout.objects.filter(id=payout.id).update(called_back_at=Now())
        if number.state == PayoutNumber.State.LIVE:
            # A call under way looks at `called_back_at` when it ends.
            no_call = Q(lease_until=None) | Q(lease_until__lte=Now())
            # What is to be cancelled is due already, and the answer to that is news as well.
            Payout.objects.filter(no_call, id=payout.id).exclude(step=Payout.Step.CANCEL).update(
                step=Payout.Step.QUERY, next_attempt_at=Now()
            )
    return True
