"""What ``status`` and ``health`` go by: the broker and the control row, no scan."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.errors import ReconcilerError
from reconciler.settings import Settings

if TYPE_CHECKING:
    import redis

    from reconciler.operations.reconciler import Reconciler

QUEUES = ("sweep", "release")
HOUR_SECONDS, DAY_SECONDS = 3600, 86_400
_EVICTING = frozenset(
    {"allkeys-lru", "allkeys-lfu", "allkeys-random"}
    | {"volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"}
)


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of the backstop; times in epoch seconds, ages in seconds."""

    now: float
    interval_seconds: int
    repair_mode: str
    last: dict[str, Any] | None
    last_complete: dict[str, Any] | None
    stuck: list[dict[str, Any]] = field(default_factory=list)
    recoveries: list[dict[str, Any]] = field(default_factory=list)
    queues: dict[str, int] = field(default_factory=dict)
    workers: tuple[str, ...] | None = None
    paused: dict[str, str] | None = None
    broker_problem: str | None = None
    table_problem: str | None = None
    eviction_policy: str | None = None

    @property
    def age_seconds(self) -> float | None:
        """How long ago the last complete sweep ended; None when there was none."""
        if self.last_complete is None:
            return None
        return max(0.0, self.now - float(self.last_complete["ended_at"]))

    @property
    def problem(self) -> str | None:
        """Why the backstop is not healthy, in one line; None when it is."""
        if self.broker_problem is not None:
            return f"the broker cannot be reached: {self.broker_problem}"
        if self.table_problem is not None:
            return f"the tables cannot be read: {self.table_problem}"
        if self.eviction_policy in _EVICTING:
            return (
                f"the broker's eviction policy {self.eviction_policy} can drop queued messages; "
                "set maxmemory-policy to noeviction"
            )
        if self.age_seconds is None:
            return "no sweep has ever completed"
        if self.age_seconds > 2 * self.interval_seconds:
            return (
                f"the last complete sweep ended {self.age_seconds:.0f} s ago, "
                f"more than twice the interval of {self.interval_seconds} s"
            )
        return None


def read_facts(
    settings: Settings,
    client: redis.Redis,
    reconciler: Reconciler,
    *,
    details: bool,
) -> Facts:
    """Read the facts; ``details`` also what only ``status`` shows.

    What cannot be reached is a fact too: nothing is raised for it.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415 - start-up time

    from workers.ledger import Ledger  # noqa: PLC0415

    known: dict[str, Any] = {
        "now": time.time(),
        "interval_seconds": settings.sweep_interval_seconds,
        "repair_mode": settings.repair_mode,
        "last": None,
        "last_complete": None,
    }
    try:
        pause = reconciler.paused()
        if pause is not None:
            known["paused"] = {"since": pause.since, "by": pause.by, "reason": pause.reason}
    except ReconcilerError as error:
        known["table_problem"] = str(error)
    ledger = Ledger(client)
    try:
        known["last"] = ledger.last()
        known["last_complete"] = ledger.last(complete=True)
        known["eviction_policy"] = eviction_policy(client)
        if details:
            known["stuck"] = ledger.last_stuck()
            known["recoveries"] = ledger.recoveries(DAY_SECONDS)
            known["queues"] = {queue: _length(client, queue) for queue in QUEUES}
            known["workers"] = _workers()
    except RedisError as error:
        known["broker_problem"] = str(error)
    return Facts(**known)


def eviction_policy(client: redis.Redis) -> str | None:
    """Return the broker's ``maxmemory-policy``; None where it may not be asked (ElastiCache)."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - start-up time

    try:
        found: Any = client.info("memory")
    except ResponseError:
        return None
    policy = found.get("maxmemory_policy")
    return str(policy) if policy is not None else None


def _length(client: redis.Redis, queue: str) -> int:
    length: Any = client.llen(queue)
    return int(length)


def _workers() -> tuple[str, ...] | None:
    """Return the names of the workers that answer within a second."""
    from workers.application import app  # noqa: PLC0415 - start-up time

    try:
        answers: list[dict[str, Any]] = app.control.ping(timeout=1.0) or []
    except Exception:  # noqa: BLE001 - whatever the transport raises, nobody answered
        return None
    return tuple(sorted(name for answer in answers for name in answer))
