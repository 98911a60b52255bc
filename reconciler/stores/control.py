"""The pause switch, which stops releases and repairs of all workers.

It is a marker row in OrchestrationTable, not in the broker, so that it works in cron mode too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from reconciler.domain.model import Item, timestamp
from reconciler.stores.conditions import put_new
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.items import row_key, text

PARTITION = "reconciler#control"
PAUSE_ROW = "reconciler#pause"
PAUSED_AT = "paused_at"
CACHE_SECONDS = 1.0
_KEY = row_key(PARTITION, PAUSE_ROW)


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when, why and by whom repairs are paused."""

    since: str
    reason: str
    by: str


class ControlStore:
    """The pause switch."""

    def __init__(
        self,
        dynamodb: DynamoDB,
        table: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._monotonic = monotonic
        self._cached: tuple[float, Pause | None] | None = None

    def pause(self, reason: str, by: str, now: datetime) -> Pause:
        """Pause all repairs; returns the pause in effect, which may be an earlier one."""
        item = {
            **_KEY,
            PAUSED_AT: {"S": timestamp(now)},
            "reason": {"S": reason or "no reason given"},
            "paused_by": {"S": by or "unknown"},
        }
        # A second pause must not overwrite the time and the reason of the first.
        lost = self._dynamodb.write(put_new(self._table, item, PAUSED_AT))
        self._cached = None
        return self._parse(lost) if lost else self._parse(item)

    def resume(self) -> None:
        """End the pause, if there is one."""
        self._dynamodb.call("delete_item", TableName=self._table, Key=_KEY)
        self._cached = None

    def paused(self) -> Pause | None:
        """Return the pause in effect, if any; the answer is at most one second old."""
        now = self._monotonic()
        if self._cached is None or now - self._cached[0] >= CACHE_SECONDS:
            item = self._dynamodb.get(self._table, _KEY)
            # Cached even if there is none, because a pass asks before each write.
            self._cached = (now, self._parse(item) if item else None)
        return self._cached[1]

    @staticmethod
    def _parse(item: Item) -> Pause:
        return Pause(
            text(item, PAUSED_AT) or "", text(item, "reason") or "", text(item, "paused_by") or ""
        )
