"""The WSGI application that Granian serves."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engine.settings")

django_application = get_wsgi_application()

# Needs the settings, as everything below engine.lib.renderers does.
from engine.lib.wsgi import with_chunked_bodies  # noqa: E402

application = with_chunked_bodies(django_application)
