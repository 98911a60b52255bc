"""The state of the backstop, for ``status``, ``health`` and ``list``.

It is read from the broker and from four rows by their keys, without a scan. Without a broker, it is
what sweeps in one process (cron mode) have recorded in the table.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

from reconciler.cli.wiring import sweep_state
from reconciler.errors import ReconcilerError, StoreUnavailableError
from reconciler.inspection.advice import runbook_of
from reconciler.observability.metrics import QUEUES
from reconciler.repair.reconciler import Reconciler
from reconciler.settings import DAY_SECONDS, Settings
from reconciler.sweeping.cron import recorded_state
from reconciler.sweeping.listing import Entry, list_entries
from reconciler.sweeping.overview import Overview
from reconciler.sweeping.segments import NEVER, Scope
from reconciler.sweeping.state import SweepState
from workers.recoveries import Recoveries

if TYPE_CHECKING:
    import celery
    import redis

HOUR_SECONDS = 3600
PATIENCE_SECONDS = 6.0
"""How long to wait for tables and broker together; a container's health check is impatient."""

_ANSWER_SECONDS = (1.0, 3.0)
"""How long to wait for workers; the second time only if none has answered."""

_MIN_SWEEP_SECONDS = 30
"""How long a sweep may take even if the interval is shorter."""

_CLOCK_SKEW_SECONDS = 5.0
_SCOPES = {Scope.ACTIVE: "active work", Scope.TABLE: "the whole table"}
_NOTHING = Overview(0.0, {}, {}, {}, ())

_NEITHER = {
    "repair": "CELERY_BROKER_URL is not set, and no sweep without a broker is recorded either",
    "report": (
        "CELERY_BROKER_URL is not set, and with REPAIR_MODE=report a sweep without a broker "
        "records nothing: go by its exit code"
    ),
}
"""The problem if no broker is set and the table records no sweep."""

_PROBE_TASK = "00000000000000000000000000"
"""The id of a task that does not exist, to test whether TaskTable answers."""


@dataclass(frozen=True)
class Status:
    """The state of the backstop; times in epoch seconds, ages in seconds.

    ``seen``: what sweeps remember. ``in_table``: it was read from the table.
    ``full_scan_interval_seconds``: None if every sweep reads the whole table. ``recoveries``: of
    the last day. ``workers``: None if they could not be asked.
    """

    now: float
    interval_seconds: int
    repair_mode: str
    full_scan_interval_seconds: int | None = None
    seen: Overview = _NOTHING
    in_table: bool = False
    recoveries: list[dict[str, Any]] = field(default_factory=list)
    queues: dict[str, int] = field(default_factory=dict)
    workers: tuple[str, ...] | None = None
    paused: dict[str, str] | None = None
    broker_problem: str | None = None
    table_problem: str | None = None
    eviction_policy: str | None = None

    @property
    def without_broker(self) -> bool:
        """Whether sweeps run without a broker (cron mode)."""
        return self.in_table and self.broker_problem is None

    @cached_property
    def entries(self) -> list[Entry]:
        """Everything that is stuck, oldest first."""
        return list_entries(self.seen.known, self.seen.now)

    @property
    def knows_stuck(self) -> bool:
        """Whether it is known what is stuck: a sweep has ended, and its findings were recorded.

        In cron mode, they are not recorded if they do not fit into a row.
        """
        last = self.seen.last()
        if last is None:
            return False
        return not self.in_table or bool(self.entries) or not last.get("stuck")

    @property
    def alarming(self) -> bool:
        """Whether anything is stuck, apart from what only waits for a slot."""
        return any(entry.alarming for entry in self.entries)

    @property
    def awaiting_evaluation(self) -> int:
        """How many orchestrations were nominated but not evaluated yet."""
        return sum(bool(known.waiting) for known in self.seen.known.values())

    # -- health

    def age_of(self, scope: Scope) -> float | None:
        """Return the age of a scope's coverage; None if it is unknown or in the future."""
        as_of = self.seen.covered_as_of(scope)
        return self.now - as_of if NEVER < as_of <= self.now + _CLOCK_SKEW_SECONDS else None

    def limit_of(self, scope: Scope) -> float:
        """Return the highest healthy age of a scope's coverage: an interval plus a sweep."""
        every = self.full_scan_interval_seconds
        if scope is Scope.TABLE and every is not None:
            return 2 * every + self.interval_seconds
        return self.interval_seconds + max(self.interval_seconds, _MIN_SWEEP_SECONDS)

    @property
    def unreachable(self) -> str | None:
        """What cannot be reached, in one line; None if everything answers."""
        if self.broker_problem is not None:
            return f"the broker cannot be reached: {self.broker_problem}"
        if self.table_problem is not None:
            return f"the tables cannot be read: {self.table_problem}"
        return None

    def instead(self, command: str) -> str:
        """Return ``command``, which reads the tables, or one that says why they cannot be read."""
        return command if self.table_problem is None else "`reconciler doctor` says what to do"

    @property
    def problem(self) -> str | None:
        """Why the backstop is unhealthy, in one line, or None.

        Workers and beat count only if they were read (``details``).
        """
        return next(self._problems(), None)

    def _problems(self) -> Iterator[str]:
        if self.unreachable is not None:
            yield self.unreachable
        if self.eviction_policy is not None:
            policy = self.eviction_policy
            what = "queued messages" if policy.startswith("allkeys") else "the state of a sweep"
            yield (
                f"the broker may drop {what} when its memory is full (maxmemory-policy {policy}); "
                "set it to noeviction"
            )
        if self.workers == () and not self.in_table:
            yield "no worker answers, so nothing is looked at"
        if self.beat_is_silent:
            yield "no beat asks for sweeps, so only what is asked for by hand is looked at"
        for scope, name in _SCOPES.items():
            age, limit = self.age_of(scope), self.limit_of(scope)
            if age is None:
                yield f"the coverage of {name} is unknown: it was never read to its end"
            elif age > limit:
                yield f"{name} is covered as of {age:.0f} s ago; it should be {limit:.0f} s at most"

    @property
    def runbook(self) -> str:
        """The runbook's section for ``problem``."""
        section = "sweep-stale"
        if self.broker_problem is not None or self.eviction_policy is not None:
            section = "broker-unreachable"
        elif self.table_problem is not None:
            section = "total-failure"
        return runbook_of(section)

    @property
    def asked_seconds_ago(self) -> float | None:
        """How long ago the last sweep of a beat began; None if none is known."""
        asked = (sweep for sweep in self.seen.sweeps if "by-hand" not in sweep.sweep_id)
        began = max((sweep.started_at for sweep in asked), default=None)
        return None if began is None else max(0.0, self.now - began)

    @property
    def beat_is_late(self) -> bool:
        """Whether no beat has asked for a sweep for too long.

        If none ever has, this counts from the first known sweep, because one by hand may have begun
        just before the first of a beat.
        """
        ago = self.asked_seconds_ago
        if ago is None:
            ago = self.now - min((s.started_at for s in self.seen.sweeps), default=NEVER)
        return ago > self.limit_of(Scope.ACTIVE)

    @property
    def beat_is_silent(self) -> bool:
        """Whether the beat is late although workers are idle."""
        has_workers = bool(self.workers) and not self.in_table
        return has_workers and not self.queues.get("sweep", 0) and self.beat_is_late

    @property
    def recovered(self) -> dict[str, Any]:
        """How much was repaired, and how long it had been stuck, in seconds."""
        stuck_for = [each["latency"] for each in self.recoveries if each["latency"] is not None]
        return {
            "last_hour": sum(each["at"] >= self.now - HOUR_SECONDS for each in self.recoveries),
            "last_day": len(self.recoveries),
            "median_latency_seconds": median(stuck_for) if stuck_for else None,
            "max_latency_seconds": max(stuck_for, default=None),
        }


def read_status(
    settings: Settings, client: redis.Redis, reconciler: Reconciler, *, details: bool
) -> Status:
    """Read the status; with ``details``, also workers, queues and recoveries.

    Raises nothing and does not wait long if something cannot be reached: the status says so.
    """
    if details:
        # Before the time starts to run, because on a busy host this import takes seconds.
        from workers.application import app  # noqa: PLC0415 - start-up time

        workers = _in_a_thread(lambda: {"workers": _workers(app, settings.main_tables)})
    parts = {
        "broker_problem": _in_a_thread(lambda: _read_broker(settings, client, details=details)),
        "table_problem": _in_a_thread(lambda: _read_tables(reconciler)),
    }
    known: dict[str, Any] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    for problem, part in parts.items():
        known.update(_result(part, problem, deadline - time.monotonic()))
    if details and "broker_problem" not in known:
        # Separately, because slow workers do not mean that the broker is away.
        with suppress(FutureTimeoutError):
            known.update(workers.result(max(0.0, deadline - time.monotonic())))
    _take_from_table(known, settings)
    # Compute ages by the clock of the sweep state, not by this host's.
    seen: Overview | None = known.get("seen")
    return status_of(settings, time.time() if seen is None else seen.now, **known)


def status_of(settings: Settings, now: float, **known: Any) -> Status:  # noqa: ANN401 - its fields
    """Return the status from the settings and what is known."""
    full = settings.full_scan_interval_seconds if settings.active_index_name else None
    return Status(
        now=now,
        interval_seconds=settings.sweep_interval_seconds,
        repair_mode=settings.repair_mode,
        full_scan_interval_seconds=full,
        **known,
    )


def _take_from_table(known: dict[str, Any], settings: Settings) -> None:
    """Use what cron mode recorded if the broker is away or knows of no sweep.

    A missing broker is no problem unless one is set.
    """
    asked_for = "celery_broker_url" in settings.model_fields_set
    recorded: Overview = known.pop("recorded", _NOTHING)
    if known.get("seen", _NOTHING).last() is not None:
        return
    if recorded.last() is None:
        if not asked_for and "broker_problem" in known and "table_problem" not in known:
            known["broker_problem"] += f"; {_NEITHER[settings.repair_mode]}"
        return
    if not asked_for:
        known.pop("broker_problem", None)
    known |= {"seen": recorded, "in_table": True, "eviction_policy": None}


def _in_a_thread(read: Callable[[], dict[str, Any]]) -> Future[dict[str, Any]]:
    """Read something in a thread, so that the caller can stop waiting."""
    part: Future[dict[str, Any]] = Future()

    def run() -> None:
        try:
            part.set_result(read())
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            part.set_exception(error)

    # A daemon thread, unlike an executor's, does not keep the process from ending.
    threading.Thread(target=run, daemon=True).start()
    return part


def _result(part: Future[dict[str, Any]], problem: str, seconds: float) -> dict[str, Any]:
    from redis.exceptions import RedisError  # noqa: PLC0415 - start-up time

    try:
        return part.result(max(0.0, seconds))
    except FutureTimeoutError:
        return {problem: f"no answer within {PATIENCE_SECONDS:.0f} s"}
    except (RedisError, ReconcilerError) as error:
        return {problem: str(error).rstrip(".")}


def _read_tables(reconciler: Reconciler) -> dict[str, Any]:
    pause = reconciler.paused()
    if _PROBE_TASK not in reconciler.tasks.read([_PROBE_TASK], consistent=False):
        raise StoreUnavailableError("the task table gave no answer, because it is throttled")
    recorded = recorded_state(reconciler.sweeps, lambda: reconciler.clock().timestamp())
    known: dict[str, Any] = {"recorded": SweepState(recorded).overview()}
    if pause is not None:
        known["paused"] = {"since": pause.since, "by": pause.by, "reason": pause.reason}
    return known


def _read_broker(settings: Settings, client: redis.Redis, *, details: bool) -> dict[str, Any]:
    known: dict[str, Any] = {
        "seen": sweep_state(settings, client).overview(),
        "eviction_policy": eviction_policy(client),
    }
    if details:
        known["recoveries"] = Recoveries(client, settings.deployment_id).list_last(DAY_SECONDS)
        known["queues"] = {queue: client.llen(queue) for queue in QUEUES}
    return known


def eviction_policy(client: redis.Redis) -> str | None:
    """Return the broker's ``maxmemory-policy`` if it can evict our keys.

    None if it cannot, or if this user must not call ``INFO``.
    """
    from redis.exceptions import ResponseError  # noqa: PLC0415 - start-up time

    from workers.broker import evicting_policy  # noqa: PLC0415

    try:
        found: Any = client.info("memory")
    except ResponseError:
        return None
    return evicting_policy(found)


def _workers(app: celery.Celery, tables: list[str]) -> tuple[str, ...] | None:
    """Return the names of the workers of these tables that answer.

    If none does at once, wait longer. Workers of other tables drop our messages.
    """
    from workers.about import ask_workers, of_tables  # noqa: PLC0415 - start-up time

    for seconds in _ANSWER_SECONDS:
        try:
            ours = of_tables(ask_workers(app, seconds), tables)
        except Exception:  # noqa: BLE001 - whatever the transport raises, nobody answered
            return None
        if ours:
            return tuple(sorted(ours))
    return ()
