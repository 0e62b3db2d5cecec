"""Winners stay small in Redis: their hashes keep the compact encoding, overfull ones too."""

from __future__ import annotations

from tests.bench import stock_cpu, stock_memory

# Bytes for a winner whose field and record have 46 to 48 characters.
MAX_BYTES = 56


def test_a_winner_takes_little_memory() -> None:
    found = stock_memory.measure(20_000)
    assert found["value"] < MAX_BYTES
    assert found["ratio"] < 0.7


def test_everybody_wins_in_the_measurement_of_cpu() -> None:
    assert stock_cpu.measure(1_000)["value"] > 0  # it raises where somebody doesn't win
