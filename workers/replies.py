"""Answers to a question that was sent as a task: one short-lived key in the broker for each.

Celery's result backend would do, but it stores and subscribes for every task or for none, and it
may be another server than the broker.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workers.running import MalformedMessageError

if TYPE_CHECKING:
    import redis

PREFIX = "reconciler:reply:"
KEEP_SECONDS = 60
"""How long an answer is kept. Whoever asked has given up before."""

_TOKEN = re.compile(r"[0-9a-f]{32}")


def new_token() -> str:
    """Return the name of a new answer; nobody can guess it."""
    return secrets.token_hex(16)


def checked_token(value: object) -> str:
    """Return ``value`` if it can name an answer: no message chooses which key a worker writes.

    Raises:
        MalformedMessageError: it cannot.
    """
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise MalformedMessageError("reply_to must be 32 hexadecimal digits")
    return value


def answer(client: redis.Redis, token: str, value: Mapping[str, Any]) -> None:
    """Leave an answer, as JSON values, for whoever asked.

    Raises:
        redis.exceptions.RedisError: the broker is away.
    """
    client.set(PREFIX + token, json.dumps(value), ex=KEEP_SECONDS)


def take(client: redis.Redis, token: str) -> dict[str, Any] | None:
    """Take an answer away with its key; None while there is none.

    Raises:
        redis.exceptions.RedisError: the broker is away.
    """
    stored: Any = client.getdel(PREFIX + token)
    return None if stored is None else dict(json.loads(stored))
