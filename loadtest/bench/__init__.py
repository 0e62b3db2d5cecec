"""The benchmark's own tools that know nothing of the product: a light HTTP client and the table.

What is measured, and against what, is in `tests/bench` (`make bench`), because most rows need the
product's code; `docs/performance.md` has the results.
"""
