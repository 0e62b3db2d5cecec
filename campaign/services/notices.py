"""Telling staff what they have to know: a row for each person, shown in the admin's header.

The words are made when they are read, in the reader's language. Where mail is configured, the clock
sends each notice once as a letter too (`campaign/tasks.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, assert_never

from django.conf import settings
from django.contrib.auth.models import User
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import QuerySet
from django.utils import translation
from django.utils.translation import gettext as _

from campaign.models import Campaign, Notice
from engine.lib.clock import now
from engine.lib.money import yuan

Kind = Notice.Kind
MAIL_MAX_AGE = dt.timedelta(hours=24)  # an older notice is read in the admin, or was
MAX_SHOWN = 50  # unread notices on one page; the older ones follow once these are read
BACKEND = "django.contrib.auth.backends.ModelBackend"


def people_who_may(permission: str) -> QuerySet[User]:
    return User.objects.with_perm(permission, backend=BACKEND).filter(is_active=True, is_staff=True)


def notices_send(
    users: Iterable[User | None], *, campaign: Campaign, kind: Notice.Kind, **details: Any
) -> None:
    """One notice for each of these people; somebody who isn't there any more gets none."""
    people = {user.pk: user for user in users if user is not None}
    Notice.objects.bulk_create(
        Notice(user=user, campaign=campaign, kind=kind, details=details) for user in people.values()
    )


def notice_text(notice: Notice) -> str:
    """The notice in the language of whoever reads it."""
    values = {"campaign": notice.campaign.slug, **notice.details}
    match Kind(notice.kind):
        case Kind.REVIEW_REQUESTED:
            text = _("%(who)s hands in %(campaign)s for review.")
        case Kind.SENT_BACK:
            text = _("%(who)s sends %(campaign)s back: %(reason)s")
        case Kind.APPROVED:
            text = _("%(who)s has approved %(campaign)s.")
        case Kind.APPROVAL_VOIDED:
            text = _("%(who)s has changed %(campaign)s: your approval is void.")
        case Kind.LAUNCH_REFUSED:
            text = _("%(campaign)s could not start: %(reason)s")
        case Kind.TOP_UP_REQUESTED:
            values["amount"] = yuan(notice.details["extra_fen"])
            text = _("%(who)s asks for %(amount)s more for %(campaign)s.")
        case Kind.TOP_UP_DECIDED:
            values["amount"] = yuan(notice.details["extra_fen"])
            if notice.details["approved"]:
                text = _("%(who)s has approved %(amount)s more for %(campaign)s.")
            else:
                text = _("%(who)s has refused %(amount)s more for %(campaign)s: %(reason)s")
        case Kind.COMPLAINTS:
            if notice.details["mood"] == "stopped":
                text = _("Many people complain about links of %(campaign)s: sharing is stopped.")
            else:
                text = _("People complain about links of %(campaign)s: sharing is slowed down.")
        case _other:
            assert_never(_other)
    return text % values


def notices_unread(user: User) -> list[Notice]:
    rows = Notice.objects.filter(user=user, read_at=None).select_related("campaign")
    return list(rows.order_by("-id")[:MAX_SHOWN])


def notices_read(*, user: User, up_to: int) -> int:
    """Everything that this person has seen, up to the newest notice on the page."""
    return Notice.objects.filter(user=user, read_at=None, pk__lte=up_to).update(read_at=now())


def notices_mail_due(*, limit: int) -> int:
    """Send what isn't sent yet, each once; a mail server that refuses is asked again next time."""
    if not settings.EMAIL_HOST:
        return 0
    sent = 0
    for _turn in range(limit):
        with transaction.atomic():
            notice = (
                Notice.objects.select_for_update(skip_locked=True, of=("self",))
                .select_related("user", "campaign")
                .filter(mailed_at=None, created_at__gt=now() - MAIL_MAX_AGE)
                .exclude(user__email="")
                .order_by("id")
                .first()
            )
            if notice is None:
                break
            # Marked first: a letter that can't be sent undoes the mark with the transaction.
            Notice.objects.filter(pk=notice.pk).update(mailed_at=now())
            with translation.override(settings.STAFF_LANGUAGE):
                text = notice_text(notice)
            send_mail(f"Laisee: {text}"[:150], text, None, [notice.user.email])
        sent += 1
    return sent
