"""The crowd: people who ask over HTTP, and the check that what they heard is what the books say.

It imports nothing of the product: it speaks HTTP and calls `manage.py`, so that a run against a
remote host and one against this machine are the same run.

    crowd_run   entry of `make crowd`: seeds, starts the crowd, shows progress, checks the money
    crowd       the locustfile
    plan        who asks what, and in which order (pure)
    answers     one answer as a log line (pure, and the log's reader and writer)
    summary     what was answered, how often, how fast (pure)
    ledger_check  the crowd's log against Postgres, row by row (pure, and a command)
    target      where the product is, and how its `manage.py` is called
"""

from __future__ import annotations
