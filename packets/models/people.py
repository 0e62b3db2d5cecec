"""Packets that people send from their own wallets (`packets/people_packets.py`)."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from packets.models.packet import Packet
from packets.models.payouts import IDEMPOTENCY_KEY_MAX_CHARS


class PeoplePacket(models.Model):
    """What makes a packet a person's own: who sends it, by which request, with which words.

    Insert-only, written in the transaction that takes the money: its key is spent for ever.
    """

    packet = models.OneToOneField(
        Packet, models.PROTECT, primary_key=True, related_name="sent", verbose_name=_("packet")
    )
    participant = models.BinaryField(_("sender"), max_length=16)
    key = models.CharField(_("idempotency key"), max_length=IDEMPOTENCY_KEY_MAX_CHARS)
    message = models.CharField(_("message"), max_length=80, blank=True)
    created_at = models.DateTimeField(_("sent at"), db_default=Now())

    class Meta:
        verbose_name = _("person's packet")
        verbose_name_plural = _("people's packets")
        permissions = [("stop_peoplepackets", _("Can stop people's packets"))]
        indexes = [models.Index(fields=["-created_at"], name="peoplepacket_newest")]
        constraints = [
            models.UniqueConstraint(fields=["participant", "key"], name="peoplepacket_key_once")
        ]

    def __str__(self) -> str:
        return self.packet_id.hex
