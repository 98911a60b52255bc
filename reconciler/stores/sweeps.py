"""What sweeps without a broker keep in the table: a lock against overlap, and their state.

Both are marker rows, like the pause. The lock only saves reading the table twice: if two sweeps
overlap, they share the work, and every write is still conditional.

    cron, machine A          cron, machine B
    take ─ renew ─ renew …   take → held by A: does nothing
    killed                   …
                             take → the lease has expired: held by B
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reconciler.domain.model import Item, timestamp
from reconciler.stores.conditions import Expression, delete, put, update
from reconciler.stores.control import PARTITION
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.items import number, row_key, text

LOCK_ROW = "reconciler#sweep-lock"
STATE_ROW = "reconciler#sweep-state"
_LOCK, _STATE = row_key(PARTITION, LOCK_ROW), row_key(PARTITION, STATE_ROW)
LEASE_SECONDS = 90
_SKEW_SECONDS = 5
"""How much clocks may differ."""

_KEEP_SECONDS = 86_400
_MAX_STATE_BYTES = 350_000
"""An item holds 400 KB."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who sweeps, since when, and when the lease expires unless it is renewed."""

    holder: str
    since: str
    expires: datetime


class SweepStore:
    """The lock and the state: two rows of OrchestrationTable."""

    def __init__(self, dynamodb: DynamoDB, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    # -- the lock

    def take(self, owner: str, holder: str, now: datetime, *, force: bool = False) -> Lease | None:
        """Take the lock; returns None on success, or the lease of another sweep.

        ``owner`` is a token of this sweep, ``holder`` is shown to people. ``force`` takes the lock
        even if another sweep holds it.
        """
        at = int(now.timestamp())
        item = {
            **_LOCK,
            "sweep_owner": {"S": owner},
            "holder": {"S": holder},
            "taken_at": {"S": timestamp(now)},
            **self._until(at),
        }
        build = Expression()
        free = build.absent("sweep_owner")
        # NOT BETWEEN, so that a writer whose clock is ahead does not hold the lock for longer than
        # a lease, and a row without a time does not hold it for ever.
        soonest = build.value({"N": str(at + 1)})
        latest = build.value({"N": str(at + LEASE_SECONDS + _SKEW_SECONDS)})
        holds = f"{build.name('expires_at')} BETWEEN {soonest} AND {latest}"
        if force:
            # The previous holder notices when it renews.
            self._dynamodb.call("put_item", TableName=self._table, Item=item)
            return None
        held = self._dynamodb.write(put(self._table, item, f"{free} OR NOT {holds}", build))
        # If an answer is lost, the client retries and finds its own lock.
        ours = held is None or text(held, "sweep_owner") == owner
        return None if held is None or ours else self._lease(held)

    def renew(self, owner: str, now: datetime) -> bool:
        """Renew the lease; False if another sweep has taken the lock."""
        build = Expression()
        change = build.assign(self._until(int(now.timestamp())))
        ours = build.equals("sweep_owner", owner)
        return self._dynamodb.write(update(self._table, _LOCK, change, ours, build)) is None

    def give_back(self, owner: str) -> None:
        """Release the lock, if it is still ours."""
        build = Expression()
        ours = build.equals("sweep_owner", owner)
        self._dynamodb.write(delete(self._table, _LOCK, ours, build))

    # -- the state

    def record(self, state: str) -> bool:
        """Save the state of sweeps; False if it is too large for a row."""
        # As text, because a binary value would slow down every scan that reads it.
        packed = b64encode(zlib.compress(state.encode())).decode()
        if len(packed) > _MAX_STATE_BYTES:
            return False
        item = {**_STATE, "state": {"S": packed}}
        self._dynamodb.call("put_item", TableName=self._table, Item=item)
        return True

    def recorded(self) -> str | None:
        """Return the saved state; None if there is none or it is unreadable."""
        packed = text(self._dynamodb.get(self._table, _STATE) or {}, "state")
        if packed is None:
            return None
        try:
            return zlib.decompress(b64decode(packed)).decode()
        except (zlib.error, ValueError):
            return None

    # -- rows

    @staticmethod
    def _until(at: int) -> dict[str, Any]:
        expires = at + LEASE_SECONDS
        # The table's TTL deletes a lock that is no longer used.
        return {"expires_at": {"N": str(expires)}, "ttl": {"N": str(expires + _KEEP_SECONDS)}}

    @staticmethod
    def _lease(item: Item) -> Lease:
        expires = datetime.fromtimestamp(number(item, "expires_at") or 0, UTC)
        return Lease(
            text(item, "holder") or "unknown", text(item, "taken_at") or "unknown", expires
        )
