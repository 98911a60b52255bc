"""What ``status`` and ``health`` go by: the broker and four rows by their keys; no scan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.errors import ReconcilerError, StoreUnavailableError
from reconciler.observability.metrics import QUEUES
from reconciler.repair.context import count_stuck
from reconciler.settings import Settings
from reconciler.sweeping.cron import recorded_state
from reconciler.sweeping.scan_step import Scope
from reconciler.sweeping.segments import NEVER
from reconciler.sweeping.state import SweepState

if TYPE_CHECKING:
    import redis

    from reconciler.repair.reconciler import Reconciler
    from reconciler.sweeping.records import Records

HOUR_SECONDS, DAY_SECONDS = 3600, 86_400
MAX_STUCK_SHOWN = 1000
PATIENCE_SECONDS = 6.0
"""How long tables and broker are waited for, together: a container's health check does not wait."""

_MIN_SWEEP_SECONDS = 30
"""Time that a sweep may take, however short the interval is."""

_CLOCK_SKEW_SECONDS = 5.0
_SCOPES = {"active": "active work", "table": "the whole table"}

_PROBE_TASK = "00000000000000000000000000"
"""A task that does not exist; asking for it shows whether TaskTable answers."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of the backstop; times in epoch seconds, ages in seconds.

    ``covered``: scope → everything that was overdue by then has been looked at; 0: unknown.
    ``full_scan_interval_seconds``: None where every sweep reads the whole table.
    ``stuck_counts``, ``oldest_seconds``: code → how many are stuck, and the age of the oldest.
    ``without_broker``: sweeps run from cron, and their state is in the table.
    """

    now: float
    interval_seconds: int
    repair_mode: str
    last: dict[str, Any] | None = None
    last_complete: dict[str, Any] | None = None
    covered: dict[str, float] = field(default_factory=dict)
    full_scan_interval_seconds: int | None = None
    at_work: list[dict[str, Any]] = field(default_factory=list)
    awaiting_evaluation: int = 0
    stuck_counts: dict[str, int] = field(default_factory=dict)
    oldest_seconds: dict[str, float] = field(default_factory=dict)
    stuck: list[dict[str, Any]] = field(default_factory=list)
    recoveries: list[dict[str, Any]] = field(default_factory=list)
    queues: dict[str, int] = field(default_factory=dict)
    workers: tuple[str, ...] | None = None
    paused: dict[str, str] | None = None
    without_broker: bool = False
    broker_problem: str | None = None
    table_problem: str | None = None
    eviction_policy: str | None = None

    def age_of(self, scope: str) -> float | None:
        """Return how long ago a scope was covered last; None while that is unknown.

        A time in the future is never fresh.
        """
        as_of = self.covered.get(scope, NEVER)
        return self.now - as_of if NEVER < as_of <= self.now + _CLOCK_SKEW_SECONDS else None

    @property
    def limit_seconds(self) -> float:
        """How old the coverage of active work may get: an interval, and the time of a sweep."""
        return self.interval_seconds + max(self.interval_seconds, _MIN_SWEEP_SECONDS)

    @property
    def table_limit_seconds(self) -> float:
        """How old the coverage of the whole table may get."""
        every = self.full_scan_interval_seconds
        return self.limit_seconds if every is None else 2 * every + self.interval_seconds

    @property
    def problem(self) -> str | None:
        """Why the backstop is not healthy, in one line; None when it is."""
        if self.broker_problem is not None:
            return f"the broker cannot be reached: {self.broker_problem}"
        if self.table_problem is not None:
            return f"the tables cannot be read: {self.table_problem}"
        if self.eviction_policy is not None:
            return self._evicting(self.eviction_policy)
        limits = {"active": self.limit_seconds, "table": self.table_limit_seconds}
        for scope, limit in limits.items():
            age = self.age_of(scope)
            if age is None:
                return f"the coverage of {_SCOPES[scope]} is unknown: it was never read to its end"
            if age > limit:
                return (
                    f"{_SCOPES[scope]} is covered as of {age:.0f} s ago; it should be "
                    f"{limit:.0f} s at most"
                )
        return None

    # -- of the recoveries

    def recovered(self, within_seconds: float) -> int:
        """Return how many recoveries there were within a time."""
        return sum(entry["at"] >= self.now - within_seconds for entry in self.recoveries)

    def latencies(self, within_seconds: float) -> list[float]:
        """Return the latencies of the recoveries within a time, in seconds."""
        return [
            float(entry["latency"])
            for entry in self.recoveries
            if entry["latency"] is not None and entry["at"] >= self.now - within_seconds
        ]

    @staticmethod
    def _evicting(policy: str) -> str:
        what = "queued messages" if policy.startswith("allkeys") else "the state of a sweep"
        return (
            f"the broker may drop {what} when its memory is full (maxmemory-policy {policy}); "
            "set it to noeviction"
        )


def read_facts(
    settings: Settings,
    client: redis.Redis,
    reconciler: Reconciler,
    *,
    details: bool,
) -> Facts:
    """Read the facts; ``details`` also what only ``status`` shows.

    What cannot be reached is a fact too: nothing is raised for it, and nothing waited for long.
    """
    parts = {
        "broker_problem": _Part(lambda: _read_broker(client, details=details)),
        "table_problem": _Part(lambda: _read_tables(reconciler)),
    }
    known: dict[str, Any] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    for problem, part in parts.items():
        known.update(part.result(problem, deadline - time.monotonic()))
    _see_without_broker(known, asked_for="celery_broker_url" in settings.model_fields_set)
    return Facts(
        now=known.pop("now", None) or time.time(),
        interval_seconds=settings.sweep_interval_seconds,
        repair_mode=settings.repair_mode,
        full_scan_interval_seconds=(
            settings.full_scan_interval_seconds if settings.active_index_name else None
        ),
        **known,
    )


def _see_without_broker(known: dict[str, Any], *, asked_for: bool) -> None:
    """In cron mode the table says what a broker would have said.

    A broker that was never asked for is no problem when it is not there, and one that happens to
    be there knows of no sweep.
    """
    recorded: dict[str, Any] = known.pop("recorded", {})
    if recorded.get("last") is None:
        return
    if not asked_for:
        known.pop("broker_problem", None)
    if known.get("last") is None and "broker_problem" not in known:
        known |= {"without_broker": True, "eviction_policy": None, **recorded}


class _Part:
    """Something that is read in a thread, so that nothing waits for what does not answer."""

    def __init__(self, read: Callable[[], dict[str, Any]]) -> None:
        self._read = read
        self._found: dict[str, Any] | BaseException | None = None
        # A daemon: one that is still waiting must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._read()
        except BaseException as error:  # noqa: BLE001 - raised again in `result`
            self._found = error

    def result(self, problem: str, seconds: float) -> dict[str, Any]:
        from redis.exceptions import RedisError  # noqa: PLC0415 - start-up time

        self._thread.join(max(0.0, seconds))
        match self._found:
            case None:
                return {problem: f"no answer within {PATIENCE_SECONDS:.0f} s"}
            case RedisError() | ReconcilerError() as error:
                return {problem: str(error)}
            case BaseException() as error:
                raise error
            case found:
                return found


def _read_tables(reconciler: Reconciler) -> dict[str, Any]:
    pause = reconciler.paused()
    if _PROBE_TASK not in reconciler.tasks.read([_PROBE_TASK], consistent=False):
        raise StoreUnavailableError("the task table gave no answer for want of capacity")
    recorded = recorded_state(reconciler.sweeps, lambda: reconciler.clock().timestamp())
    known: dict[str, Any] = {"recorded": _read_state(recorded)}
    if pause is not None:
        known["paused"] = {"since": pause.since, "by": pause.by, "reason": pause.reason}
    return known


def _read_broker(client: redis.Redis, *, details: bool) -> dict[str, Any]:
    from workers.broker_records import BrokerRecords  # noqa: PLC0415 - start-up time
    from workers.recoveries import Recoveries  # noqa: PLC0415

    known = {
        **_read_state(BrokerRecords(client)),
        "eviction_policy": eviction_policy(client),
    }
    if details:
        known["recoveries"] = Recoveries(client).list_last(DAY_SECONDS)
        known["queues"] = {queue: _length(client, queue) for queue in QUEUES}
        known["workers"] = _workers()
    return known


def _read_state(records: Records) -> dict[str, Any]:
    """Return the facts that the state of sweeps holds, in the broker or in the table."""
    seen = SweepState(records).overview()
    stuck = seen.list_stuck()
    counts = count_stuck(stuck)
    return {
        "now": seen.now,
        "last": seen.last(),
        "last_complete": seen.last(complete=True),
        "covered": {scope.value: seen.covered_as_of(scope) for scope in Scope},
        "at_work": [
            {
                "sweep_id": sweep.sweep_id,
                "age_seconds": round(max(0.0, seen.now - sweep.started_at), 1),
                "segments": sweep.segments,
                "segments_left": seen.count_unread(sweep),
            }
            for sweep in seen.at_work()
        ],
        "awaiting_evaluation": sum(bool(known.waiting) for known in seen.known.values()),
        "stuck_counts": dict(counts.stuck),
        "oldest_seconds": dict(counts.oldest_stuck_seconds),
        "stuck": [asdict(entry) for entry in stuck[:MAX_STUCK_SHOWN]],
    }


def eviction_policy(client: redis.Redis) -> str | None:
    """Return the broker's ``maxmemory-policy`` if it can lose anything that we put there.

    None where it cannot, and where nobody may ask (``INFO`` can be forbidden to a user).
    """
    from redis.exceptions import ResponseError  # noqa: PLC0415 - start-up time

    try:
        found: Any = client.info("memory")
    except ResponseError:
        return None
    policy = str(found.get("maxmemory_policy", ""))
    evicts = policy.startswith(("allkeys-", "volatile-"))
    # Without a limit nothing is ever evicted.
    return policy if evicts and int(found.get("maxmemory", 0)) > 0 else None


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
