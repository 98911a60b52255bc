"""What ``status`` and ``health`` go by: the broker and four rows by their keys; no scan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.errors import ReconcilerError, StoreUnavailableError
from reconciler.observability.metrics import QUEUES
from reconciler.settings import Settings

if TYPE_CHECKING:
    import redis

    from reconciler.operations.reconciler import Reconciler
    from reconciler.stores.sweeps import Recorded
    from workers.ledger import Open

HOUR_SECONDS, DAY_SECONDS = 3600, 86_400
PATIENCE_SECONDS = 6.0
"""How long tables and broker are waited for, together: a container's health check does not wait."""

_PROBE_TASK = "00000000000000000000000000"
"""A task that does not exist; asking for it shows whether TaskTable answers."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of the backstop; times in epoch seconds, ages in seconds.

    ``full_scan_interval_seconds``: None where every sweep is a full scan. ``last_full``: the last
    complete one of those. ``beside``: a sweep by the index at work beside a full scan
    (``at_work``). ``without_broker``: sweeps run from cron, and what is known of them stands in the
    table.
    """

    now: float
    interval_seconds: int
    repair_mode: str
    last: dict[str, Any] | None = None
    last_complete: dict[str, Any] | None = None
    last_full: dict[str, Any] | None = None
    full_scan_interval_seconds: int | None = None
    at_work: dict[str, Any] | None = None
    beside: dict[str, Any] | None = None
    stuck: list[dict[str, Any]] = field(default_factory=list)
    recoveries: list[dict[str, Any]] = field(default_factory=list)
    queues: dict[str, int] = field(default_factory=dict)
    workers: tuple[str, ...] | None = None
    paused: dict[str, str] | None = None
    without_broker: bool = False
    broker_problem: str | None = None
    table_problem: str | None = None
    eviction_policy: str | None = None

    @property
    def age_seconds(self) -> float | None:
        """How long ago the last complete sweep ended; None when there was none."""
        return self._age(self.last_complete)

    @property
    def full_scan_age_seconds(self) -> float | None:
        """How long ago the last full scan ended; None when there was none."""
        return self._age(self.last_full)

    @property
    def full_scan_late(self) -> bool:
        """Whether what only a full scan finds has gone unlooked for, for too long."""
        every, since = self.full_scan_interval_seconds, self.full_scan_age_seconds
        return every is not None and since is not None and since > 2 * every + self.interval_seconds

    def _age(self, summary: dict[str, Any] | None) -> float | None:
        return None if summary is None else max(0.0, self.now - float(summary["ended_at"]))

    @property
    def problem(self) -> str | None:
        """Why the backstop is not healthy, in one line; None when it is."""
        if self.broker_problem is not None:
            return f"the broker cannot be reached: {self.broker_problem}"
        if self.table_problem is not None:
            return f"the tables cannot be read: {self.table_problem}"
        if self.eviction_policy is not None:
            return self._evicting(self.eviction_policy)
        if self.age_seconds is None:
            return "no sweep has ever completed"
        if self.age_seconds > 2 * self.interval_seconds:
            return (
                f"the last complete sweep ended {self.age_seconds:.0f} s ago, "
                f"more than twice the interval of {self.interval_seconds} s"
            )
        if self.full_scan_late:
            return (
                f"the last full scan ended {self.full_scan_age_seconds:.0f} s ago, "
                f"more than twice FULL_SCAN_INTERVAL_SECONDS ({self.full_scan_interval_seconds} s)"
            )
        return None

    # -- of the last complete sweep

    @property
    def stuck_counts(self) -> dict[str, int]:
        """Code → how many were stuck after the last complete sweep."""
        return dict((self.last_complete or {}).get("stuck", {}))

    @property
    def oldest_seconds(self) -> dict[str, float]:
        """Code → the age of the oldest of them, when that sweep ended."""
        return dict((self.last_complete or {}).get("oldest_stuck_seconds", {}))

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
        now=time.time(),
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
    recorded: Recorded | None = known.pop("recorded", None)
    if recorded is None:
        return
    if not asked_for:
        known.pop("broker_problem", None)
    if known.get("last") is None and "broker_problem" not in known:
        known |= {
            "without_broker": True,
            "last": recorded.last,
            "last_complete": recorded.last_complete,
            "last_full": recorded.last_full,
            "stuck": recorded.stuck,
            "eviction_policy": None,
        }


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
    known: dict[str, Any] = {"recorded": reconciler.sweeps.recorded()}
    if pause is not None:
        known["paused"] = {"since": pause.since, "by": pause.by, "reason": pause.reason}
    return known


def _read_broker(client: redis.Redis, *, details: bool) -> dict[str, Any]:
    from workers.ledger import Ledger  # noqa: PLC0415 - start-up time

    ledger = Ledger(client)
    known: dict[str, Any] = {
        "last": ledger.last(),
        "last_complete": ledger.last(complete=True),
        "last_full": ledger.last_full(),
        "eviction_policy": eviction_policy(client),
    }
    if details:
        known["at_work"] = _at_work(ledger.current())
        known["beside"] = _at_work(ledger.beside())
        known["stuck"] = ledger.last_stuck()
        known["recoveries"] = ledger.recoveries(DAY_SECONDS)
        known["queues"] = {queue: _length(client, queue) for queue in QUEUES}
        known["workers"] = _workers()
    return known


def _at_work(found: Open | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "sweep_id": found.sweep_id,
        "age_seconds": round(max(0.0, time.time() - found.started_at), 1),
        "idle_seconds": round(found.idle_seconds, 1),
        "open_units": found.units,
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
