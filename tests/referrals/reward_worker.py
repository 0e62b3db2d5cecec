"""A process that grants what is due: `python -m tests.referrals.reward_worker`.

It stops where a death would hurt most, between a reward's claim and its row, says so, and waits
there to be killed.
"""

from __future__ import annotations

import sys
from typing import Any

import django


def main() -> None:
    django.setup()
    from referrals.rewarding import granting, running

    def stop(*args: Any, **named: Any) -> None:
        print("claimed", flush=True)
        sys.stdin.read()

    granting._write = stop  # type: ignore[assignment]
    running.qualifications_run(limit=1)


if __name__ == "__main__":
    main()
