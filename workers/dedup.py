"""Dedup keys, which keep the same work from being enqueued twice.

Celery does not dedupe by task id. A key identifies the work, and its value is a token that travels
with the message. Whoever ends the work deletes the key only if it has that token.

    enqueue ── SET key token NX EX ttl ── publish ── run ── end: delete, if the token is ours
                  │ taken: dropped, counted    └── failed: delete, if the token is ours

The expiry covers lost workers, lost messages and revoked tasks. A key only saves work; it is not a
mutex. Two runs at once are normal, and conditional writes prevent a second task.
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
    """A deployment's keys, one for each piece of work that is queued or under way."""

    def __init__(self, client: redis.Redis, deployment_id: str) -> None:
        self.client = client
        self._prefix = f"{PREFIX}{deployment_id}:"
        self._doubtful: dict[str, str] = {}

    def take(self, keys: Iterable[str], ttl_seconds: int) -> dict[str, str]:
        """Take keys; returns key → token for those that were free.

        Raises:
            redis.exceptions.RedisError: the broker cannot be reached; no key is taken.
        """
        # If the last answer was lost, the key may be ours already: use the same token again.
        tokens = {key: self._doubtful.get(key) or secrets.token_hex(8) for key in keys}
        self._doubtful |= tokens  # until the answer is here
        try:
            with self.client.pipeline(transaction=False) as pipe:
                for key, token in tokens.items():
                    self._set(pipe, key, token, ttl_seconds)
                there = zip(tokens.items(), pipe.execute(), strict=True)
            taken = {
                key: token
                for (key, token), held in there
                if self._is_ours(key, token, held, ttl_seconds)
            }
            for key in tokens:
                del self._doubtful[key]
            return taken
        finally:
            self._give_back_doubtful()

    def _set(self, client: redis.Redis, key: str, token: str, ttl_seconds: int) -> Any:  # noqa: ANN401 - the previous value, or a pipeline
        return client.set(self._prefix + key, token, nx=True, ex=ttl_seconds, get=True)

    def _is_ours(self, key: str, token: str, held: bytes | None, ttl_seconds: int) -> bool:
        # A client that lost the answer retries, and finds its own token.
        if held is None or held == token.encode():
            return True
        # A key that expires too late was set before the broker's clock jumped back; one that never
        # expires was not set by us.
        if 0 <= int(self.client.pttl(self._prefix + key)) <= ttl_seconds * 1000:
            return False
        self.give_back(key, held)
        return self._set(self.client, key, token, ttl_seconds) in {None, token.encode()}

    def _give_back_doubtful(self) -> None:
        """Give back keys that may have been taken by requests whose answers were lost."""
        with suppress(redis.RedisError):
            for key, token in list(self._doubtful.items()):
                self.give_back(key, token)
                del self._doubtful[key]

    def give_back(self, key: str, token: str | bytes) -> bool:
        """Delete the key if it is still ours; returns whether it was.

        Raises:
            redis.exceptions.RedisError: the broker cannot be reached.
        """
        return bool(self.client.eval(_DELETE_IF_OURS, 1, self._prefix + key, token))

    def give_back_with(self, outbox: Pipeline, key: str, token: str) -> None:
        """Delete the key when the outbox is sent."""
        outbox.eval(_DELETE_IF_OURS, 1, self._prefix + key, token)


def header_of(key: str, token: str) -> dict[str, Any]:
    """Return the message header that carries a key."""
    return {HEADER: {"key": key, "token": token}}


def from_headers(headers: Any) -> tuple[str, str] | None:  # noqa: ANN401 - from a message
    """Return (key, token) from a message's headers; None if there is no valid one."""
    if not isinstance(headers, dict):
        return None
    found = headers.get(HEADER)
    if not isinstance(found, dict):
        return None
    key, token = found.get("key"), found.get("token")
    return (key, token) if isinstance(key, str) and isinstance(token, str) else None
