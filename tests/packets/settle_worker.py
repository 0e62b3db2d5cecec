"""A process that settles: `python -m tests.packets.settle_worker`.

For each line that it reads (claims per batch, a number) it settles until nothing is left, as a
worker's sweeps do, and answers with a line of JSON: what was done, what had to be tried again by
SQLSTATE, and its own memory as it went.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import django

PAGE_KIB = 4
PAUSE_S = 0.005  # while others are at all the lanes that are left


def memory_kib() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB


def settle(limit: int) -> dict[str, Any]:
    from django.db import connection

    from packets import settlement

    total = settlement.SettlementResult()
    seen_kib = []
    with mock.patch.object(settlement, "log") as log:
        while True:
            done = settlement.settle_due(max_batches=20, limit=limit)
            total += done
            seen_kib.append(memory_kib())
            if done.batches == 0:
                if not done.busy:
                    break
                time.sleep(PAUSE_S)
        again = Counter(call.kwargs["sqlstate"] for call in log.warning.call_args_list)
    connection.close()
    return {
        "settled": total.settled,
        "parked": total.parked,
        "failed": total.failed,
        "again": dict(again),
        "memory_kib": seen_kib,
    }


def main() -> None:
    django.setup()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(settle(int(line))), flush=True)


if __name__ == "__main__":
    main()
