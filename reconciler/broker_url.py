"""The broker's address: its login, its TLS, and what of it may be shown.

One URL is read by five clients (Celery's transport and result backend, Flower, ``limits``, and our
own), and each understands a dialect of its own. So it is brought here into the one form that all
of them take, and what cannot be is refused before anything is connected to.
"""

from __future__ import annotations

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
_TLS_PARAMETERS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def normalised(url: str, username: str | None = None, password: str | None = None) -> str:
    """Return ``url`` as every client takes it; a login goes in where it has none of its own.

    Raises:
        ValueError: it makes no sense; the message holds no password.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        # Its own words quote what it could not read, the password among it.
        raise ValueError(
            "it cannot be read; /, ?, #, @ and : of a password are written in percents"
        ) from None
    if parts.scheme not in SCHEMES:
        raise ValueError("it must begin with redis:// or, with TLS, with rediss://")
    if not host:
        raise ValueError("it names no host")
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
    # What is in the URL goes first: the password alone may come from a secret.
    name = unquote(own_name) or username or ""
    return f"{quote(name, safe='')}:{quote(password, safe='')}@{address}"


def _query(query: str, *, tls: bool) -> str:
    given = dict(parse_qsl(query, keep_blank_values=True))
    foreign = [name for name in given if name.startswith("ssl_") and name not in _TLS_PARAMETERS]
    if foreign:
        raise ValueError(f"{foreign[0]} is not one of {', '.join(_TLS_PARAMETERS)}")
    if not tls:
        if any(name in _TLS_PARAMETERS for name in given):
            raise ValueError("it has settings of TLS, which need rediss://")
        return query
    # Celery's spelling is CERT_REQUIRED, redis-py's is required; both of them take the latter.
    # It is always there: kombu takes an absent one for "do not verify".
    verify = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if verify not in _VERIFY:
        raise ValueError(f"ssl_cert_reqs is one of {', '.join(_VERIFY)}")
    return urlencode({**given, "ssl_cert_reqs": verify})


def tls_options(url: str) -> dict[str, Any] | None:
    """Return a normalised URL's TLS as Celery and Flower want it; None without TLS."""
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return None
    given = dict(parse_qsl(parts.query))
    named = {name: given[name] for name in _TLS_PARAMETERS if name in given}
    return {**named, "ssl_cert_reqs": _VERIFY[given["ssl_cert_reqs"]]}


def login_of(url: str) -> tuple[str | None, str | None]:
    """Return the user name and the password in ``url``, each None where there is none."""
    parts = urlsplit(url)
    name, password = parts.username, parts.password
    return unquote(name) if name else None, unquote(password) if password else None


def shown(url: str) -> str:
    """Return ``url`` for people and logs: with a mask for its password."""
    scheme, separator, rest = url.partition("://")
    if not separator or "@" not in rest:
        return url
    # By hand, not as a URL: it may be one that cannot be parsed, and it is shown for that.
    login, _, address = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}:{MASK}@{address}"
