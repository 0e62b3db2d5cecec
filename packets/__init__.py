"""The data plane: everything claimable, how it is claimed, and the ledger that accounts for it.

A packet is funded by a ledger account and stands behind a gate; it doesn't know what a campaign is.
"""
