"""The link as pictures, for the sharer's app: a QR code, and a poster with the campaign's words."""

from __future__ import annotations

import io
import textwrap

import segno

from referrals.linking.links import address_of
from referrals.sharing.words import Words

QR_BORDER = 4  # modules; what a camera needs around it
QR_SCALE = 8
LINE_CHARS = {True: 14, False: 26}  # that fit the poster's width, in Chinese or not
MAX_LINES = 5


def qr_svg(code: str) -> bytes:
    out = io.BytesIO()
    _qr(code, "qr").save(out, kind="svg", scale=QR_SCALE, border=QR_BORDER, light="white")
    return out.getvalue()


def qr_png(code: str) -> bytes:
    out = io.BytesIO()
    _qr(code, "qr").save(out, kind="png", scale=QR_SCALE, border=QR_BORDER, light="white")
    return out.getvalue()


def poster(code: str, words: Words, language: str) -> dict[str, object]:
    """What the poster's template shows; it is 720 × 1080."""
    symbol = _qr(code, "poster")
    lines = textwrap.wrap(words.text, LINE_CHARS[language.startswith("zh")])[:MAX_LINES]
    return {
        "title": words.title,
        "lines": list(enumerate(lines)),
        "qr": symbol.svg_data_uri(scale=QR_SCALE, border=QR_BORDER, light="white"),
        "code": f"{code[:5]} {code[5:]}",
    }


def _qr(code: str, vehicle: str) -> segno.QRCode:
    return segno.make_qr(address_of(code, vehicle), error="m")
