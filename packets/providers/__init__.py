"""Payout providers: one small module each, all with the interface of `base.py`."""
