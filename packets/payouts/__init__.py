"""Money out: from a wallet to somebody's account, exactly once, in the order of the flow.

withdrawals.py   a person asks: checked, taken from the wallet, written down
queue.py         which payout is next: leases, fair share, the rail's pace
sending.py       one step: number and request committed, the call, what came of it
rules.py         what an answer means (pure)
breaker.py       when nothing new is sent
callbacks.py     what a provider tells us by itself; then we ask
manual.py        what a person decides, with evidence
"""
