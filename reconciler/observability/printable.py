"""Makes text from a table safe to show.

Others write titles and ids. A terminal would obey escape sequences in them, and characters that
change the writing direction would make one text look like another.
"""

from __future__ import annotations

import json
import unicodedata

_SPACES = {ord(sign): " " for sign in "\t\n\v\f\r\x85\u2028\u2029"}
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
_SHOWN = {**_PICTURES, **_SPACES}
_UNSEEN = "\N{REPLACEMENT CHARACTER}"
_JOINERS = "\u200c\u200d"
"""Zero-width joiners, which emoji and several scripts need."""


def printable(text: str) -> str:
    """Return ``text`` on one line, with control characters replaced by visible ones."""
    if text.isprintable():
        return text
    return "".join(_visible(sign) for sign in text)


def _visible(sign: str) -> str:
    code = ord(sign)
    if code in _SHOWN:
        return _SHOWN[code]
    unseen = unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return _UNSEEN if unseen and sign not in _JOINERS else sign


def printable_json(text: str) -> str:
    """Return JSON of the same value, with invisible characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        json.dumps(sign)[1:-1] if sign not in "\n" + _JOINERS and not sign.isprintable() else sign
        for sign in text
    )
