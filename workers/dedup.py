"""The dedup key before every enqueue: the same work is not put on the queue twice.

Celery does not dedupe by task id. The key names the work itself, and its value is a token that
travels with the message. Whoever ends the work deletes its own key and no other's.

    enqueue ── SET key token NX EX ttl ── publish ── run ── end: delete, if the token is ours
                  │ taken: dropped, counted    └── failed: delete, if the token is ours

The expiry covers a lost worker, a lost message and a revoked task. So the key only saves work; it
is no mutex. Two runs at once are normal, and the condition on the write keeps two tasks from
existing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from redis.client import Pipeline

PREFIX = "reconciler:dedup:"
HEADER = "reconciler_dedup"

_DELETE_IF_OURS = """
-- KEYS[1]: key. ARGV: token.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


class DedupKeys:
    """One key for each piece of work of a deployment that is queued or under way."""

    def __init__(self, client: redis.Redis, deployment_id: str) -> None:
        self.client = client
        self.deployment_id = deployment_id
        self._prefix = f"{PREFIX}{deployment_id}:"
        self._doubtful: dict[str, str] = {}

    def take(self, key: str, ttl_seconds: int) -> str | None:
        """Take a key; returns the token to give it back with, None where it is taken.

        Raises:
            redis.exceptions.RedisError: the broker cannot be reached.
        """
        # Whether it was taken last time is not known, if the answer was lost: then it is ours.
        token = self._doubtful.get(key) or secrets.token_hex(8)
        try:
            taken = self._set(key, token, ttl_seconds)
        except redis.RedisError:
            self._doubtful[key] = token
            self._give_back_doubtful()
            raise
        self._doubtful.pop(key, None)
        self._give_back_doubtful()
        return token if taken else None

    def _set(self, key: str, token: str, ttl_seconds: int) -> bool:
        name = self._prefix + key
        while True:
            held: Any = self.client.set(name, token, nx=True, ex=ttl_seconds, get=True)
            # A client that lost the answer asks again, and meets its own token.
            if held is None or held == token.encode():
                return True
            # A key that expires later than that was set before the broker's clock jumped back, and
            # one that never expires by nobody of ours.
            if 0 <= int(self.client.pttl(name)) <= ttl_seconds * 1000:
                return False
            self.give_back(key, held)

    def take_all(self, keys: Iterable[str], ttl_seconds: int) -> dict[str, str]:
        """Take keys; returns key → token for those that were not taken.

        Raises:
            redis.exceptions.RedisError: the broker cannot be reached; none is taken.
        """
        tokens: dict[str, str] = {}
        try:
            for key in keys:
                token = self.take(key, ttl_seconds)
                if token is not None:
                    tokens[key] = token
        except redis.RedisError:
            # Given back with the one that is in doubt, once the broker answers.
            self._doubtful.update(tokens)
            raise
        return tokens

    def _give_back_doubtful(self) -> None:
        """Give back what may have been taken by requests whose answer was lost."""
        with suppress(redis.RedisError):
            for key, token in list(self._doubtful.items()):
                self.give_back(key, token)
                del self._doubtful[key]

    def give_back(self, key: str, token: str | bytes) -> bool:
        """Delete the key, if it is still ours; False where it was not.

        Raises:
            redis.exceptions.RedisError: the broker cannot be reached.
        """
        return bool(self.client.eval(_DELETE_IF_OURS, 1, self._prefix + key, token))

    def give_back_with(self, outbox: Pipeline, key: str, token: str) -> None:
        """Have the key deleted with what else is in the outbox."""
        outbox.eval(_DELETE_IF_OURS, 1, self._prefix + key, token)


def header_of(key: str, token: str) -> dict[str, Any]:
    """Return the message header that carries a key."""
    return {HEADER: {"key": key, "token": token}}


def from_headers(headers: Any) -> tuple[str, str] | None:  # noqa: ANN401 - from a message
    """Return (key, token) of a message's headers; None where there is no valid one."""
    if not isinstance(headers, dict):
        return None
    found = headers.get(HEADER)
    if not isinstance(found, dict):
        return None
    key, token = found.get("key"), found.get("token")
    return (key, token) if isinstance(key, str) and isinstance(token, str) else None
