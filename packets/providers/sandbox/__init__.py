"""The sandbox: a payout provider that ships with the project and can do what providers do wrong.

`server` is a real HTTP server with books of its own (`books`); `faults` decides what goes wrong;
`adapter` is our side. Everything but the adapter knows nothing of Django or of our models, so what
both sides agree on is agreed on over HTTP alone.
"""
