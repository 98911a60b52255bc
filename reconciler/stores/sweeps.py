"""What sweeps without a broker leave in the table: a lock against overlap, and their state.

Marker rows beside the pause. Nothing that is written to a child rests on the lock: two sweeps at
once share the work, and each write's own condition holds. It saves reading the table twice.

    cron, machine A          cron, machine B
    take ─ renew ─ renew …   take → held by A: steps aside
    killed                   …
                             take → the lease has run out: ours
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
"""By how much clocks may differ without anybody losing the lock."""

_KEEP_SECONDS = 86_400
_MAX_STATE_BYTES = 350_000
"""An item holds 400 KB."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who sweeps, since when, and until when that holds unless it is renewed."""

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
        """Take the lock; returns None when it is ours, and the lease of who has it when not.

        ``owner`` is a token of this sweep, ``holder`` what a person is shown. ``force`` takes it
        from whoever has it.
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
        # A writer whose clock is ahead must not hold the lock for longer than a lease, nor a row
        # without a time, of which no comparison is true, for ever.
        soonest = build.value({"N": str(at + 1)})
        latest = build.value({"N": str(at + LEASE_SECONDS + _SKEW_SECONDS)})
        holds = f"{build.name('expires_at')} BETWEEN {soonest} AND {latest}"
        if force:
            # Whoever had it finds out when it renews.
            self._dynamodb.call("put_item", TableName=self._table, Item=item)
            return None
        held = self._dynamodb.write(put(self._table, item, f"{free} OR NOT {holds}", build))
        # An answer that was lost on its way has the client try again, and meet its own lock.
        ours = held is None or text(held, "sweep_owner") == owner
        return None if held is None or ours else self._lease(held)

    def renew(self, owner: str, now: datetime) -> bool:
        """Hold the lock for longer; False when it is somebody else's by now."""
        build = Expression()
        change = build.assign(self._until(int(now.timestamp())))
        ours = build.equals("sweep_owner", owner)
        return self._dynamodb.write(update(self._table, _LOCK, change, ours, build)) is None

    def give_back(self, owner: str) -> None:
        """Give the lock back, if it is still ours."""
        build = Expression()
        ours = build.equals("sweep_owner", owner)
        self._dynamodb.write(delete(self._table, _LOCK, ours, build))

    # -- the state

    def record(self, state: str) -> bool:
        """Keep the state of sweeps; False where it is too large for a row."""
        # As text: a binary value would slow down every scan that comes by it.
        packed = b64encode(zlib.compress(state.encode())).decode()
        if len(packed) > _MAX_STATE_BYTES:
            return False
        item = {**_STATE, "state": {"S": packed}}
        self._dynamodb.call("put_item", TableName=self._table, Item=item)
        return True

    def recorded(self) -> str | None:
        """Return the state that was kept; None where there is none that can be read."""
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
        # A lock that nobody ever takes again goes with the table's other old rows.
        return {"expires_at": {"N": str(expires)}, "ttl": {"N": str(expires + _KEEP_SECONDS)}}

    @staticmethod
    def _lease(item: Item) -> Lease:
        expires = datetime.fromtimestamp(number(item, "expires_at") or 0, UTC)
        return Lease(
            text(item, "holder") or "unknown", text(item, "taken_at") or "unknown", expires
        )
