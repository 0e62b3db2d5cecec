"""Money that is frozen for review: who says so, where it lies, and how it gets out.

    rules.py       what settlement and withdrawals ask: is this more than usual?
    editing.py     the rules as staff write them, and what one would have held
    holding.py     escrow or wallet → held
    resolving.py   held → the wallet, or back to whoever funded the packet, once
    appeals.py     what the person says about it

A hold freezes the money, not the person. Nothing is released or forfeited by a timer.
"""
