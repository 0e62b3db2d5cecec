"""Tests mirror the rooms; real Postgres and Valkey stand behind all of them (tests/servers.py)."""
