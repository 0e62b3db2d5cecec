"""Codes of share links: drawn at random, easy to read out, read however they were typed.

Crockford's alphabet: 32 letters without I, L, O and U. Ten of them are 50 bits: with ten million
live codes a guess hits once in a hundred million, behind a limit on misses.
"""

from __future__ import annotations

import re
import secrets

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CHARS = 10
_TYPED_AS = str.maketrans({"O": "0", "I": "1", "L": "1"})
_CODE = re.compile(f"[{ALPHABET}]{{{CHARS}}}\\Z")
# What people put between the groups of a code.
_BETWEEN = re.compile(r"[\s\-–—]+")


def draw() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(CHARS))


def canonical(typed: str) -> str | None:
    """The code behind what was typed; None where it can't be one."""
    if len(typed) > 4 * CHARS:
        return None
    code = _BETWEEN.sub("", typed).upper().translate(_TYPED_AS)
    return code if _CODE.match(code) else None
