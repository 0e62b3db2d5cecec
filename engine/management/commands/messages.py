"""`manage.py messages`: brings the Chinese catalogue in line with the code, and compiles it."""

from __future__ import annotations

from typing import Any

from babel.messages.catalog import Catalog
from django.core.management.base import BaseCommand, CommandError

from engine.lib import catalogue


class Command(BaseCommand):
    help = "Updates locale/zh_Hans from the code and compiles it; names what lacks its Chinese."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        path = catalogue.po_path()
        texts = catalogue.wanted()
        old = catalogue.load() if path.exists() else Catalog(locale=catalogue.LOCALE)
        fresh = catalogue.updated(old, texts)
        catalogue.write(fresh)
        wrong = catalogue.problems(catalogue.load(), texts)
        if wrong:
            raise CommandError("\n".join([*wrong, f"{len(wrong)} to put right in {path}"]))
        self.stdout.write(f"{len(texts)} texts, all of them in Chinese")
