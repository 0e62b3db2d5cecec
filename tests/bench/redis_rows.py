"""The rows about Redis alone: the claim script's CPU, and the memory of the winners."""

from __future__ import annotations

from collections.abc import Callable

from loadtest.bench.table import Result, Row


def measure(rounds: int, calls: int, held: int, result: Result, say: Callable[[str], None]) -> None:
    """Adds both rows; each measurement starts a Valkey of its own."""
    # They import models, which is possible only once the copy runs and Django is set up.
    from tests.bench import stock_cpu, stock_memory

    found = []
    for number in range(1, rounds + 1):
        found.append(stock_cpu.measure(calls))
        say(f"round {number}/{rounds}  the claim script's CPU: {found[-1]['ratio']:.2f}")
    result.rows.append(
        Row(
            "Redis, CPU of the claim script (k = 2, pipelined by 200)",
            "the smallest script that dedupes and decrements",
            4.0,
            False,
            [one["value"] for one in found],
            [one["base"] for one in found],
            " µs",
            f"{calls:,} calls a round",
        )
    )
    # Bytes don't vary from run to run: once is enough.
    memory = stock_memory.measure(held)
    say(f"memory of {held:,} claims: {memory['ratio']:.2f}")
    result.rows.append(
        Row(
            f"Redis, memory of a claim at {held:,}",
            "the same claims in one flat hash",
            0.45,
            False,
            [memory["value"]],
            [memory["base"]],
            " B",
            "taken once: bytes don't vary",
        )
    )
