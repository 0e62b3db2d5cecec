from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ReferralsConfig(AppConfig):
    name = "referrals"
    verbose_name = _("Referrals")

    def ready(self) -> None:
        from packets import sightings
        from packets.claiming import inviters
        from packets.invariants import questions_register
        from referrals.invariants import QUESTIONS
        from referrals.linking.links import owner_of
        from referrals.risk import noting

        sightings.listen(noting.sightings_keep)
        questions_register(QUESTIONS)
        inviters.answer_with(owner_of)
