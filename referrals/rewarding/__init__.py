"""Rewards: when a referral has earned them, and how they are granted once.

qualifying.py  the friend's first claim, found along the lanes; or an event that was reported
granting.py    ticket, claim, Reward row; in this order, each repeatable
freezing.py    a reward's money held for a reviewer, once, whoever wants it held
running.py     due rows, leased by Postgres's clock
"""
