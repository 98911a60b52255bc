"""The broker's URL: its login, its TLS options, and how it may be shown.

Five clients read the URL (Celery's transport and result backend, Flower, ``limits``, and our own),
and each accepts other spellings. This module converts it into the one form that all of them
accept, and rejects an invalid URL before anybody connects.
"""

from __future__ import annotations

import re
import ssl
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

SCHEMES = ("redis", "rediss")
MASK = "**"

_VERIFY = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}
_IN_QUERY = re.compile(r"(?<=[?&]password=)[^&#]*")
_TLS_PARAMETERS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_PARAMETERS = (*_TLS_PARAMETERS, "password")
_DATABASE = re.compile(r"/?\d*")


def normalised(url: str, username: str | None = None, password: str | None = None) -> str:
    """Return ``url`` in the form that every client accepts, with the login if it has none.

    Raises:
        ValueError: it is invalid; the message holds no password.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        # The original message quotes the URL, and with it the password.
        raise ValueError(
            "it cannot be parsed; /, ?, #, @ and : in a password must be percent-encoded"
        ) from None
    if parts.scheme not in SCHEMES:
        raise ValueError("it must begin with redis:// or, with TLS, with rediss://")
    if not host:
        raise ValueError("it has no host")
    if not _DATABASE.fullmatch(parts.path):
        raise ValueError("the path must be the number of a database, such as /0")
    return urlunsplit(
        parts._replace(
            netloc=_netloc(parts.netloc, username, password),
            query=_query(parts.query, tls=parts.scheme == "rediss"),
        )
    )


def _netloc(netloc: str, username: str | None, password: str | None) -> str:
    login, _, address = netloc.rpartition("@")
    own_name, _, own_password = login.partition(":")
    if own_password or password is None:
        return netloc
    # The URL takes precedence: only the password may come from a secret.
    name = unquote(own_name) or username or ""
    return f"{quote(name, safe='')}:{quote(password, safe='')}@{address}"


def _query(query: str, *, tls: bool) -> str:
    given = dict(parse_qsl(query, keep_blank_values=True))
    foreign = next((name for name in given if name not in _PARAMETERS), None)
    if foreign is not None:
        # redis-py would take others as arguments of a connection; kombu fails on them.
        raise ValueError(f"{foreign} is not one of {', '.join(_PARAMETERS)}")
    if not tls:
        if any(name in _TLS_PARAMETERS for name in given):
            raise ValueError("TLS options need rediss://")
        return query
    # Celery spells it CERT_REQUIRED and redis-py required; both accept the latter. It is always
    # set, because kombu does not verify if it is missing.
    verify = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if verify not in _VERIFY:
        raise ValueError(f"ssl_cert_reqs must be one of {', '.join(_VERIFY)}")
    return urlencode({**given, "ssl_cert_reqs": verify})


def tls_options(url: str) -> dict[str, Any] | None:
    """Return the TLS options of a normalised URL for Celery and Flower; None without TLS."""
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return None
    given = dict(parse_qsl(parts.query))
    named = {name: given[name] for name in _TLS_PARAMETERS if name in given}
    return {**named, "ssl_cert_reqs": _VERIFY[given["ssl_cert_reqs"]]}


def login_of(url: str) -> tuple[str | None, str | None]:
    """Return the user name and the password in ``url``, each None if it is missing."""
    parts = urlsplit(url)
    name, password = parts.username, parts.password
    return unquote(name) if name else None, unquote(password) if password else None


def shown(url: str) -> str:
    """Return ``url`` for people and logs, with its password masked."""
    # Not parsed as a URL: this also shows URLs that cannot be parsed.
    url = _IN_QUERY.sub(MASK, url)
    scheme, separator, rest = url.partition("://")
    login, at, address = (rest if separator else url).rpartition("@")
    if not at:
        return url
    if not separator:  # the beginning of the login is unknown
        return f"{MASK}@{address}"
    return f"{scheme}://{login.partition(':')[0]}:{MASK}@{address}"
