"""Webhooks: events of a client app, told to the addresses that its people asked for.

    outbox_emit (engine/lib/outbox.py)   an event and its deliveries, in the caller's transaction
    deliveries.py                        takes what is due under a lease, calls, writes what came
    calling.py, addresses.py             one call over HTTPS, to addresses of the open internet only
    signing.py                           Standard Webhooks: ids, times and signatures
    services.py                          endpoints: made, rotated, switched; deliveries: sent again

What they keep: an event exists exactly when what it tells of was committed; it is delivered at
least once, under one id for ever, and by one process at a time.
"""

from __future__ import annotations
