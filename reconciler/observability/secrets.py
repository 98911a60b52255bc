"""Secrets that this process was given, to be blotted out wherever they would be shown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

BLOT = "**"

_SECRET_NAME = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|BASIC_AUTH|PRIVATE_KEY|API_KEY")
_POINTS_TO_ONE = re.compile(r"(_ARN|_FILE|_URI|_NAME)$")
"""Endings of names whose value says where a secret is, and is none."""

_LEAST_CHARACTERS = 6
"""Shorter ones are words of every line: blotting them out would hide what is said."""

_IN_URL = re.compile(
    r"(?P<before>[a-z][a-z0-9+.-]*://[^\s/:@\"']*:)[^\s/@\"']+(?=@)", re.IGNORECASE
)


class Blotter:
    """Blots known secrets, and the password of any URL, out of text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1])}
        known = sorted((f for f in forms if len(f) >= _LEAST_CHARACTERS), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] | None = None) -> Blotter:
        """Know the secrets that stand in the environment, by their names and in URLs."""
        return cls(_secrets(os.environ if environ is None else environ))

    def blot(self, text: str) -> str:
        """Return ``text`` without them."""
        if "://" in text:
            text = _IN_URL.sub(rf"\g<before>{BLOT}", text)
        return text if self._known is None else self._known.sub(BLOT, text)


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
