"""Farms: who seems to be one person many times, why, and what a person decides about it."""
