"""A process that claims a packet again and again through one door, each time as somebody new.

    python -m tests.packets.opening_watch <web | edge> <packet> <app> <seconds a view is kept>

Prints one JSON line for each answer: when it was asked for (seconds since 1970) and what it was.
Ends by itself after MAX_S, or when it is told to by a closed standard input.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

import django

MAX_S = 40
PAUSE_S = 0.02


def main(door: str, packet: str, app_id: str, keep_s: str) -> None:
    from django.test.utils import setup_test_environment

    from engine.models import ClientApp
    from packets.claiming.registry import registry
    from tests.api.doors import DOORS, Visitor
    from tests.campaign import stage

    setup_test_environment()
    registry.lifetime_s = float(keep_s)
    app = ClientApp.objects.get(pk=app_id)
    until = time.monotonic() + MAX_S
    number = 0
    while time.monotonic() < until:
        number += 1
        token = stage.token(app, f"{door}-{os.getpid()}-{number}")
        visitor = Visitor(DOORS[door](), f"Bearer {token}")
        asked = time.time()
        answer = visitor.post(f"/packets/{packet}/claims", {})
        result = answer.json["result"] if answer.status == 200 else answer.status
        print(json.dumps({"asked": asked, "result": result}), flush=True)
        time.sleep(PAUSE_S)


def end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    django.setup()
    main(*sys.argv[1:])
