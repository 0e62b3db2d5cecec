"""The kernel as a Django app: its system checks and logs are in force once Django is set up."""

from __future__ import annotations

from axes.apps import AppConfig as AxesConfig
from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EngineConfig(AppConfig):
    name = "engine"
    default = True  # of the configurations in this file
    verbose_name = _("Access and audit")

    def ready(self) -> None:
        from engine import checks  # noqa: F401  (importing registers the checks)
        from engine.lib.logs import configure

        configure()


class LogInsConfig(AxesConfig):
    """The lock-out's library under a name that staff can read."""

    verbose_name = _("Log-ins")
