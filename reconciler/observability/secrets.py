"""Redacts the secrets of this process from everything that it shows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

REDACTED = "**"

_SECRET_NAME = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|BASIC_AUTH|PRIVATE_KEY|API_KEY")
_POINTS_TO_ONE = re.compile(r"(_ARN|_FILE|_URI|_NAME)$")
"""Endings of names whose value is the address of a secret, not the secret itself."""

_MIN_CHARACTERS = 6
"""Redacting shorter secrets would also hit ordinary words and make lines unreadable."""

_IN_URL = re.compile(
    r"(?P<before>[a-z][a-z0-9+.-]*://[^\s/:@\"']*:)[^\s/@\"']+(?=@)", re.IGNORECASE
)


class Redactor:
    """Redacts the secrets in environment variables, by their names, and the password of any URL."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        secrets = set(_secrets(environ))
        forms = secrets | {json.dumps(secret)[1:-1] for secret in secrets}
        known = sorted((f for f in forms if len(f) >= _MIN_CHARACTERS), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def redact(self, text: str) -> str:
        """Return ``text`` without the secrets."""
        if "://" in text:
            text = _IN_URL.sub(rf"\g<before>{REDACTED}", text)
        return text if self._known is None else self._known.sub(REDACTED, text)


def _secrets(environ: Mapping[str, str]) -> Iterable[str]:
    for name, value in environ.items():
        if _SECRET_NAME.search(name) and not _POINTS_TO_ONE.search(name):
            yield value
            if name.endswith("BASIC_AUTH"):
                yield from (pair.partition(":")[2] for pair in value.split(","))
        elif "://" in value:
            yield from _password_of(value)


def _password_of(url: str) -> Iterable[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)
