"""Answers to questions that were sent as tasks: one short-lived key in the broker for each.

Celery's result backend does not fit: it stores and subscribes for every task or for none, and it
may be on another server than the broker.
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
"""How long an answer is kept; longer than anybody waits for it."""

_TOKEN = re.compile(r"[0-9a-f]{32}")


def new_token() -> str:
    """Return an unguessable name for a new answer."""
    return secrets.token_hex(16)


def checked_token(value: object) -> str:
    """Return ``value`` if it can name an answer, so that no message chooses arbitrary keys.

    Raises:
        MalformedMessageError: it cannot.
    """
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise MalformedMessageError("reply_to must be 32 hexadecimal digits")
    return value


def answer(client: redis.Redis, token: str, value: Mapping[str, Any]) -> None:
    """Store an answer as JSON.

    Raises:
        redis.exceptions.RedisError: the broker is away.
    """
    client.set(PREFIX + token, json.dumps(value), ex=KEEP_SECONDS)


def take(client: redis.Redis, token: str) -> dict[str, Any] | None:
    """Return an answer and delete its key; None while there is none.

    Raises:
        redis.exceptions.RedisError: the broker is away.
    """
    stored: Any = client.getdel(PREFIX + token)
    return None if stored is None else dict(json.loads(stored))
