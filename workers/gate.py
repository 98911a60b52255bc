"""The gate before every enqueue: the same work is not put on the queue twice.

Celery does not dedupe by task id. The gate's key is the work itself, and its value a nonce that
travels with the message: whoever ends the work gives back its own key and no other's.

    enqueue ── SET key nonce NX EX ttl ── publish ── run ── end: delete, if the nonce is ours
                  │ taken: dropped, counted    └── failed: delete, if the nonce is ours

The expiry stands for a lost worker, a lost message and a revoked task. So this is a throttle and
not a mutex: two runs at once are normal, and what keeps two tasks from existing is the condition
on the write.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import redis

PREFIX = "reconciler:gate:"
HEADER = "reconciler_gate"

_LEAVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


class Gate:
    """One key for each piece of work that is queued or under way."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._leave = client.register_script(_LEAVE)

    def enter(self, key: str, ttl_seconds: int) -> str | None:
        """Take the key; returns the nonce to give it back with, or None when it is taken.

        Raises:
            redis.exceptions.RedisError: the broker is away.
        """
        nonce = secrets.token_hex(8)
        taken = self.client.set(PREFIX + key, nonce, nx=True, ex=ttl_seconds)
        return nonce if taken else None

    def leave(self, key: str, nonce: str) -> bool:
        """Give the key back, if it is still ours; False when it was not."""
        return bool(self._leave(keys=[PREFIX + key], args=[nonce]))


def header_of(key: str, nonce: str) -> dict[str, Any]:
    """Return the message header that carries a key."""
    return {HEADER: {"key": key, "nonce": nonce}}


def from_headers(headers: Any) -> tuple[str, str] | None:  # noqa: ANN401 - from a message
    """Return (key, nonce) of a message's headers, None where there is no sound one."""
    if not isinstance(headers, dict):
        return None
    found = headers.get(HEADER)
    if not isinstance(found, dict):
        return None
    key, nonce = found.get("key"), found.get("nonce")
    return (key, nonce) if isinstance(key, str) and isinstance(nonce, str) else None
