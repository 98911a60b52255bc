"""The ledger: a sweep's summary, added up in the broker as its parts come in.

No chord, which one failed part would silence. Each part (a step of a segment, an evaluation, a
release) is a unit: opened before its message is published, and settled once however often it runs,
since a redelivery finds it settled already. The sweep is over when no unit is open. One whose
units are never settled, because workers died, is closed as incomplete by the sweep after it.

One sweep is under way at a time, and beside a full scan one by the index. No orchestration is
evaluated for both at once: what is left out for the one, only the other tells of. So the list of
what was stuck is replaced only by a complete full scan that was alone. Any other sweep puts in what
it found; if it is complete, it takes out what stood there when it began and it has looked at.

    <id>          hash  mode, segments, coverage, started_at, progress_at, the counts, closed;
                        beside: it had another beside it
    <id>:units    set   units that are open
    <id>:seen     set   every unit that was ever opened, so that none is opened a second time
    <id>:oldest   zset  what the units left stuck
    <id>:given    zset  what was known to be stuck when it began, if it goes by the index
    <id>:done     list  the summary, once; whoever waits blocks on it
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from reconciler.operations.context import Stuck, count_stuck
from reconciler.operations.counts import Counts
from reconciler.operations.coverage import Coverage, Known, known_from
from reconciler.operations.summary import SweepSummary
from workers import ledger_scripts as scripts

if TYPE_CHECKING:
    import redis

PREFIX = "reconciler:ledger:"
CURRENT = f"{PREFIX}current"
BESIDE = f"{PREFIX}beside"
"""The sweep by the index that is at work beside a full scan, which is the current one."""

LAST = f"{PREFIX}last"
LAST_COMPLETE = f"{PREFIX}last-complete"
LAST_FULL = f"{PREFIX}last-full"
LAST_STUCK = f"{PREFIX}last-oldest"
LAST_STUCK_CUT = f"{PREFIX}last-oldest-cut"
"""Stands where that list was added to, and is not whole; what replaces it takes this away."""

RECOVERIES = f"{PREFIX}recoveries"

KEEP_SECONDS = 6 * 3600
DAY_SECONDS = 86_400
MOST_RECOVERIES = 20_000
LEAST_STALE_SECONDS = 30
LONGEST_SILENCE_SECONDS = 80
"""Of a task that is at work: its time limit, and the longest pause before it is tried again."""


def stale_after(interval_seconds: int) -> float:
    """Return after how many seconds of silence a sweep has lost a message, or its workers.

    Well below an interval, where there is room: it is the very next sweep that must find it so.
    Should it be at work after all, it only ends as incomplete, and the next does the rest.
    """
    silence = max(LONGEST_SILENCE_SECONDS, interval_seconds / 2)
    return max(LEAST_STALE_SECONDS, min(interval_seconds, silence))


class Start(Enum):
    """What came of starting a sweep."""

    OVERLAPS = 0
    STARTED = 1
    BEGUN_BEFORE = 2


class Unit(Enum):
    """How a unit stands when it is opened."""

    NEW = 0
    OPEN = 1
    """Opened before, and not settled: its message may be on its way, or may never have left."""
    SETTLED = 2
    SWEEP_OVER = 3


@dataclass(frozen=True, slots=True)
class Open:
    """A sweep that is under way. ``idle_seconds``: since anything of it was heard."""

    sweep_id: str
    started_at: float
    idle_seconds: float
    units: int
    coverage: Coverage = Coverage.FULL


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep is to do: a redelivery must go by what it was begun with."""

    mode: str
    segments: int
    coverage: Coverage = Coverage.FULL


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is: parts that have ended of those known by now, and what they counted."""

    ended: int
    known: int
    counts: Counts


class Ledger:
    """Sweeps under way, and the last ones that ended."""

    def __init__(self, client: redis.Redis, now: Callable[[], float] = time.time) -> None:
        self._client = client
        self._now = now
        self._start = client.register_script(scripts.START)
        self._open = client.register_script(scripts.OPEN)
        self._settle = client.register_script(scripts.SETTLE)
        self._close = client.register_script(scripts.CLOSE)

    @staticmethod
    def _keys(sweep_id: str) -> tuple[str, str, str]:
        return (
            f"{PREFIX}{sweep_id}:units",
            f"{PREFIX}{sweep_id}",
            f"{PREFIX}{sweep_id}:oldest",
        )

    # -- a sweep's life

    def start(
        self, sweep_id: str, plan: Plan, units: Iterable[str], *, beside: bool = False
    ) -> Start:
        """Open a sweep with its first units, in one step: of two at once, one overlaps.

        ``beside``: it may begin beside a full scan, if nothing else is at work there.
        """
        units_key, facts, _ = self._keys(sweep_id)
        keys = [CURRENT, facts, units_key, f"{facts}:seen", BESIDE, f"{facts}:given", LAST_STUCK]
        args: list[str | int] = [
            *(sweep_id, KEEP_SECONDS, plan.mode, plan.segments, repr(self._now())),
            *(plan.coverage.value, "beside" if beside else "alone"),
        ]
        return Start(int(self._start(keys=keys, args=[*args, *units])))

    def plan(self, sweep_id: str) -> Plan | None:
        """Return what a sweep was begun with; None when it has not been begun, or is forgotten."""
        stored: Any = self._client.hmget(self._keys(sweep_id)[1], ["mode", "segments", "coverage"])
        mode, segments, coverage = map(_text, stored)
        if mode is None or segments is None:
            return None
        return Plan(mode, int(segments), _coverage(coverage))

    def step_aside(self, sweep_id: str, coverage: Coverage = Coverage.FULL) -> str | None:
        """Tell whoever waits for a sweep that another is at work; returns which.

        Of two it is the one that does as well, and takes no longer than it has to.
        """
        slots = (BESIDE, CURRENT) if coverage is Coverage.ACTIVE else (CURRENT, BESIDE)
        other = next(filter(None, (_text(self._client.get(slot)) for slot in slots)), None)
        key = f"{PREFIX}{sweep_id}:done"
        with self._client.pipeline(transaction=True) as pipe:
            pipe.rpush(key, json.dumps({"sweep_id": sweep_id, "stepped_aside_for": other}))
            pipe.expire(key, KEEP_SECONDS)
            pipe.execute()
        return other

    def is_open(self, sweep_id: str, unit: str) -> bool:
        """Whether a unit has not been settled yet."""
        return bool(self._client.sismember(self._keys(sweep_id)[0], unit))

    def open_units(self, sweep_id: str) -> list[str]:
        """Return the units that have not been settled yet, in one order for all who ask."""
        stored: Any = self._client.smembers(self._keys(sweep_id)[0])
        return sorted(str(_text(unit)) for unit in stored)

    def current(self) -> Open | None:
        """Return the sweep that is under way, if any."""
        return self._at_work(CURRENT)

    def beside(self) -> Open | None:
        """Return the sweep by the index that is at work beside it, if any."""
        return self._at_work(BESIDE)

    def _at_work(self, slot: str) -> Open | None:
        sweep_id = _text(self._client.get(slot))
        if sweep_id is None:
            return None
        units_key, facts, _ = self._keys(sweep_id)
        names = ["started_at", "progress_at", "coverage", "closed"]
        stored: Any = self._client.hmget(facts, names)
        started, progress, coverage, closed = map(_text, stored)
        if started is None or progress is None or closed is not None:
            return None
        idle = max(0.0, self._now() - float(progress))
        units = int(self._client.scard(units_key))
        return Open(sweep_id, float(started), idle, units, _coverage(coverage))

    def had_another_beside_it(self, sweep_id: str) -> bool:
        """Whether another sweep was at work at any time of this one."""
        return bool(self._client.hexists(self._keys(sweep_id)[1], "beside"))

    def is_over(self, sweep_id: str) -> bool:
        """Whether a sweep has been closed, or forgotten."""
        facts: Any = self._client.hmget(self._keys(sweep_id)[1], ["started_at", "closed"])
        return facts[0] is None or facts[1] is not None

    def open_unit(self, sweep_id: str, unit: str) -> Unit:
        """Open a unit before its message is published."""
        units_key, facts, _ = self._keys(sweep_id)
        keys = [facts, units_key, f"{facts}:seen", f"{facts}:given", CURRENT, BESIDE]
        return Unit(int(self._open(keys=keys, args=[unit, KEEP_SECONDS, sweep_id])))

    def drop_unit(self, sweep_id: str, unit: str) -> None:
        """Take back a unit whose message was not published."""
        units_key, facts, _ = self._keys(sweep_id)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.srem(units_key, unit)
            pipe.srem(f"{facts}:seen", unit)
            pipe.execute()

    def settle(
        self,
        sweep_id: str,
        unit: str,
        counts: Counts,
        *,
        stuck: Iterable[Stuck] = (),
        unread: bool = False,
        paused_since: str | None = None,
    ) -> bool:
        """Add a unit's counts, once; returns whether it was the last that was open.

        ``unread``: a segment that could not be read, so that the sweep is not complete.
        ``paused_since``: the time on the pause switch, where the unit came by it.
        """
        units_key, facts, stuck_key = self._keys(sweep_id)
        added = flatten(counts)
        if unread:
            added["unread"] = 1
        oldest = dict(counts.oldest_stuck_seconds)
        # The oldest are kept; one whose age is not known counts as the oldest.
        entries = [
            part
            for entry in stuck
            for part in (
                "+inf" if entry.age_seconds is None else repr(entry.age_seconds),
                json.dumps(asdict(entry)),
            )
        ]
        paused = "no" if paused_since is None else paused_since
        now = repr(self._now())
        left = self._settle(
            keys=[
                *(units_key, facts, stuck_key, f"{facts}:seen", f"{facts}:given"),
                *(CURRENT, BESIDE),
            ],
            args=[
                *(unit, json.dumps(added), json.dumps(oldest), now, paused),
                *(KEEP_SECONDS, sweep_id),
                *entries,
            ],
        )
        return int(left) == 0

    def close(
        self, sweep_id: str, *, abandoned: bool = False, repair_mode: str = "repair"
    ) -> SweepSummary | None:
        """End a sweep and return its summary; None when somebody else has just done so.

        It is kept as the last complete one if it ``stands`` in that mode. Where another was beside
        it, what is remembered and only that one looks at counts as stuck too, as it was last seen:
        else a gauge would fall for it, and rise again when the other ends.

        In one step: one that was ended by halves would keep every later sweep from beginning.
        """
        stored: Any = self._client.hgetall(self._keys(sweep_id)[1])
        facts = {_text(k): _text(v) for k, v in stored.items()}
        summary = _summary(sweep_id, facts, self._now(), abandoned=abandoned)
        found = sum(summary.counts.stuck.values())
        if "beside" in facts and summary.stands(repair_mode):
            left = count_stuck(self._not_looked_at(sweep_id))
            summary = replace(summary, counts=summary.counts + left)
        kept = self._store(summary, "close", repair_mode, found)
        return summary if kept else None

    def _not_looked_at(self, sweep_id: str) -> Iterable[Stuck]:
        """Yield what is remembered of orchestrations that a sweep has not looked at."""
        seen: Any = self._client.smembers(f"{self._keys(sweep_id)[1]}:seen")
        looked_at = {_text(unit) for unit in seen}
        for entry in self.last_stuck():
            if f"evaluate:{entry['orchestration_id']}" not in looked_at:
                yield Stuck(**entry)

    def fail(self, sweep_id: str, *, mode: str) -> SweepSummary:
        """Store the summary of a sweep that could not even begin, or not send all its segments.

        It is over: what was sent of it must not end it once more, as complete.
        """
        summary = SweepSummary(
            sweep_id,
            mode,
            complete=False,
            segments=0,
            duration_seconds=0.0,
            counts=Counts(errors=1),
        )
        self._store(summary, "fail", "repair", 0)
        return summary

    def _store(self, summary: SweepSummary, how: str, repair_mode: str, found: int) -> bool:
        """Store a summary; ``found``: how much of what is stuck the sweep found itself."""
        units_key, facts_key, stuck_key = self._keys(summary.sweep_id)
        said = json.dumps(
            {**summary.to_json(), "oldest_stuck_seconds": dict(summary.counts.oldest_stuck_seconds)}
            | {"ended_at": self._now()}
        )
        keys = [
            *(CURRENT, facts_key, units_key, f"{facts_key}:seen", stuck_key),
            *(LAST, LAST_COMPLETE, LAST_STUCK, f"{facts_key}:done", LAST_FULL),
            *(BESIDE, LAST_STUCK_CUT, f"{facts_key}:given"),
        ]
        args: list[str | int] = [
            *(how, summary.sweep_id, KEEP_SECONDS),
            "last complete" if summary.stands(repair_mode) else "last",
            *(said, summary.coverage.value),
            "listed" if summary.is_of(repair_mode) else "not listed",
            found,
        ]
        return bool(self._close(keys=keys, args=args))

    # -- for people

    def in_progress(self) -> dict[str, str]:
        """Return what has been added up so far of the sweep that is under way, field by field."""
        sweep_id = _text(self._client.get(CURRENT))
        stored: Any = {} if sweep_id is None else self._client.hgetall(self._keys(sweep_id)[1])
        return {str(_text(name)): str(_text(value)) for name, value in stored.items()}

    def progress(self, sweep_id: str) -> Progress | None:
        """Return how far a sweep is; None when no worker has begun it."""
        units_key, facts_key, _ = self._keys(sweep_id)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(facts_key)
            pipe.scard(f"{facts_key}:seen")
            pipe.scard(units_key)
            stored, known, still_open = pipe.execute()
        if not stored:
            return None
        facts = {_text(name): _text(value) for name, value in stored.items()}
        counts = _summary(sweep_id, facts, self._now(), abandoned=False).counts
        return Progress(max(0, known - still_open), known, counts)

    def wait(self, sweep_id: str, timeout_seconds: float) -> dict[str, Any] | None:
        """Wait for a sweep's summary, but not for longer; leaves it there for others."""
        key = f"{PREFIX}{sweep_id}:done"
        found = self._client.blpop([key], timeout=timeout_seconds)
        if found is None:
            return None
        said = found[1]
        self._client.rpush(key, said)
        self._client.expire(key, KEEP_SECONDS)
        return dict(json.loads(said))

    def ended(self) -> list[dict[str, Any]]:
        """Return the summaries of the sweeps of the last hours, the oldest first.

        For whoever looks on and must miss none: it goes through all keys of the broker.
        """
        keys: Iterable[Any] = self._client.scan_iter(match=f"{PREFIX}*:done", count=1000)
        found: Iterable[Any] = (self._client.lindex(key, 0) for key in keys)
        summaries = [dict(json.loads(said)) for said in found if said is not None]
        # Of one that stepped aside, this is what it did.
        swept = (summary for summary in summaries if "ended_at" in summary)
        return sorted(swept, key=lambda summary: float(summary["ended_at"]))

    def last(self, *, complete: bool = False) -> dict[str, Any] | None:
        """Return the summary of the last sweep, or of the last complete one."""
        said = self._client.get(LAST_COMPLETE if complete else LAST)
        return None if said is None else dict(json.loads(said))

    def last_full(self) -> dict[str, Any] | None:
        """Return the summary of the last complete sweep that read the whole table."""
        said = self._client.get(LAST_FULL)
        return None if said is None else dict(json.loads(said))

    def known(self) -> Known:
        """Return what earlier sweeps have left for the next one to go by, all of one moment."""
        with self._client.pipeline(transaction=True) as pipe:
            for key in (LAST, LAST_FULL, LAST_COMPLETE):
                pipe.get(key)
            pipe.zrevrange(LAST_STUCK, 0, -1)
            pipe.exists(LAST_STUCK_CUT)
            *summaries, stuck, cut = pipe.execute()
        last, full, complete = (said and dict(json.loads(said)) for said in summaries)
        known = known_from(last, full, complete, map(json.loads, stuck))
        return replace(known, stuck=None) if cut else known

    def last_stuck(self) -> list[dict[str, Any]]:
        """Return what was stuck after the last complete sweep: the 1000 oldest, oldest first."""
        found: Any = self._client.zrevrange(LAST_STUCK, 0, -1)
        return [json.loads(entry) for entry in found]

    def record_recovery(self, code: str, ids: Mapping[str, str], latency: float | None) -> None:
        """Remember a recovery for a day."""
        now = self._now()
        member = json.dumps({**ids, "code": code, "latency": latency, "at": now})
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zadd(RECOVERIES, {member: now})
            pipe.zremrangebyscore(RECOVERIES, 0, now - DAY_SECONDS)
            pipe.zremrangebyrank(RECOVERIES, 0, -MOST_RECOVERIES - 1)
            pipe.expire(RECOVERIES, DAY_SECONDS)
            pipe.execute()

    def recoveries(self, within_seconds: float) -> list[dict[str, Any]]:
        """Return the recoveries of the last so many seconds, newest last."""
        found: Any = self._client.zrangebyscore(RECOVERIES, self._now() - within_seconds, "+inf")
        return [json.loads(entry) for entry in found]


def flatten(counts: Counts) -> dict[str, float]:
    """Return counts as fields that can each be added to."""
    fields: dict[str, float] = {}
    for name, value in counts.to_json().items():
        if name == "oldest_stuck_seconds":
            continue
        if isinstance(value, dict):
            fields.update({f"{name}:{key}": amount for key, amount in value.items()})
        else:
            fields[name] = value
    return fields


def _summary(
    sweep_id: str, facts: Mapping[str | None, str | None], now: float, *, abandoned: bool
) -> SweepSummary:
    nested: dict[str, dict[str, float]] = {"stuck": {}, "planned": {}, "oldest": {}}
    flat: dict[str, float] = {}
    for name, value in facts.items():
        group, _, key = (name or "").partition(":")
        if key and group in nested:
            nested[group][key] = float(value or 0)
        elif name in Counts.__dataclass_fields__:
            flat[name or ""] = float(value or 0)
    units = {"read_units", "write_units"}
    counts = Counts.from_json(
        {name: value if name in units else int(value) for name, value in flat.items()}
        | {"stuck": {code: int(count) for code, count in nested["stuck"].items()}}
        | {"planned": {name: int(count) for name, count in nested["planned"].items()}}
        | {"oldest_stuck_seconds": nested["oldest"]}
    )
    mode, paused_since = facts.get("mode") or "repair", facts.get("paused_since")
    return SweepSummary(
        sweep_id=sweep_id,
        mode="paused" if mode == "repair" and paused_since is not None else mode,
        complete=not abandoned and not float(facts.get("unread") or 0),
        segments=int(float(facts.get("segments") or 0)),
        duration_seconds=max(0.0, now - float(facts.get("started_at") or now)),
        counts=counts,
        paused_since=paused_since,
        coverage=_coverage(facts.get("coverage")),
    )


def _coverage(stored: str | None) -> Coverage:
    # One that was begun by an older version reads everything.
    return Coverage.FULL if stored is None else Coverage(stored)


def _text(value: Any) -> str | None:  # noqa: ANN401 - redis gives bytes
    return value.decode() if isinstance(value, bytes) else value
