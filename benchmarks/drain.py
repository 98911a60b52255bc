"""Measures a drain: a backlog is released at the release rate, the longest due first.

A fresh deployment finds children that have been due for one to two hours; each orchestration has
its own time. Beat and workers use the default settings, except for the interval and those in
``run``.

*In time*: the seconds from the start of the first sweep until the pipeline of the last child is
invoked, divided by the seconds that the rate allows.

*In order*: a child's turn is its rank among all children by how long it has been due. If it is
released n places after its turn, n children that had been due for less time were released before
it. Releases are ordered by their invocation of the pipeline, which follows the commit.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import correlation, median
from typing import Any

from benchmarks.deployment import Deployment, deployed
from benchmarks.fans import seed_shape, storm_of
from benchmarks.place import Place, fresh_place
from benchmarks.runs import Say
from reconciler.domain.model import moment
from workers.enqueue import releases_between_asks

RATE_PER_MINUTE = 600
INTERVAL_SECONDS = 300
SPREAD_SECONDS = 3600.0
"""How much longer the first child has been due than the last."""

SECONDS_GOAL = 1.1
"""Maximum, as a ratio to the seconds that the rate allows."""

LATE_GOAL = 1.1
"""Maximum, in queues of releases. Half a queue is released before the first choice by age, and half
a queue is queued then; a child waits for no more."""

RANK_GOAL = 0.95
"""Minimum rank correlation of the releases after the first queue."""

_PATIENCE = 2.0
_LOOK_SECONDS = 0.2
_SLICES = 50


@dataclass(frozen=True, slots=True)
class Release:
    """When a child was released, and when it became due (epoch seconds)."""

    at: float
    due: float


@dataclass(frozen=True, slots=True)
class Order:
    """How well the order of releases matched the turns.

    ``rank_correlation``: of the order of releases with the turns; 1.0: the same order.
    ``places_late``: how many places after its turn a child was released; maximum and 99th
    percentile. ``timeline``: seconds since the first sweep began, number released by then, and the
    median turn of those released since the previous entry.
    """

    rank_correlation: float
    most_places_late: int
    p99_places_late: int
    timeline: Sequence[tuple[float, int, int]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A drain.

    ``queue``: the maximum number of queued releases. ``after_queue``: the order of the releases
    after that number.
    """

    children: int
    each: int
    rate_per_minute: int
    interval_seconds: int
    seconds: float
    sweeps: int
    queue: int
    order: Order
    after_queue: Order

    @property
    def allowed_seconds(self) -> float:
        """The seconds that the rate allows."""
        return self.children * 60 / self.rate_per_minute

    @property
    def seconds_ratio(self) -> float:
        """The seconds taken ÷ the seconds allowed."""
        return self.seconds / self.allowed_seconds

    def broken_bounds(self) -> list[str]:
        """Return the goals that are not met."""
        goals = {
            "seconds": self.seconds_ratio <= SECONDS_GOAL,
            "places late": self.order.most_places_late <= LATE_GOAL * self.queue,
            "order after the first queue": self.after_queue.rank_correlation >= RANK_GOAL,
        }
        return [name for name, met in goals.items() if not met]

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as a line of the record."""
        return {**asdict(self), "seconds_ratio": round(self.seconds_ratio, 3)}


def run(children: int, each: int, interval_seconds: int, say: Say) -> Outcome:
    """Release ``children``, with ``each`` of them in an orchestration.

    Raises:
        RuntimeError: it takes more than a minute and twice the seconds that the rate allows.
    """
    settings = {
        "RELEASE_RATE_PER_MINUTE": str(RATE_PER_MINUTE),
        "SWEEP_INTERVAL_SECONDS": str(interval_seconds),
        # The tasks are invoked and then stay SUBMITTED. They must not count as never started.
        "TASK_START_TIMEOUT_SECONDS": "7200",
    }
    with fresh_place() as place, deployed(place, settings) as deployment:
        say(f"seeding {children:,} children, {each:,} in each orchestration")
        rows = list(storm_of(children, each, SPREAD_SECONDS))
        seed_shape(place, iter(rows))
        deployment.start_workers()
        say(f"releasing {RATE_PER_MINUTE} per minute: {children * 60 // RATE_PER_MINUTE:,} s")
        deployment.start_beat()
        _wait(deployment, children)
        sweeps = deployment.list_sweeps()
        began = min(sweep.started_at for sweep in sweeps.values())
        releases = _read(place, rows, deployment)
    queue = 2 * releases_between_asks(RATE_PER_MINUTE, interval_seconds)
    return Outcome(
        children,
        each,
        RATE_PER_MINUTE,
        interval_seconds,
        round(releases[-1].at - began, 1),
        len(sweeps),
        queue,
        order_of(releases, began),
        order_of(releases[queue:], began),
    )


def _wait(deployment: Deployment, children: int) -> None:
    allowed = children * 60 / RATE_PER_MINUTE
    deadline = time.monotonic() + _PATIENCE * allowed + 60
    while len(deployment.invocations.at) < children:
        deployment.supervisor.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {len(deployment.invocations.at)} of {children} were released")
        time.sleep(_LOOK_SECONDS)


def _read(place: Place, rows: Sequence[Any], deployment: Deployment) -> list[Release]:
    """Return the releases in order, one for each child."""
    due = {row["orchestration_id"]["S"]: row["updated_at"]["S"] for row in rows}
    found = []
    pages = place.client().get_paginator("scan").paginate(TableName=place.tasks)
    for task in (task for page in pages for task in page["Items"]):
        since = moment(due[task["channel_metadata"]["M"]["orchestration_id"]["S"]])
        if since is None:
            raise RuntimeError(f"no time: {task}")
        found.append(Release(deployment.invocations.at[task["task_id"]["S"]], since.timestamp()))
    return sorted(found, key=lambda release: release.at)


def order_of(releases: Sequence[Release], began: float) -> Order:
    """Return how well the order of ``releases`` matches their turns."""
    dues = sorted(release.due for release in releases)
    turns = [bisect_right(dues, release.due) for release in releases]
    late = sorted(max(0, place - turn) for place, turn in enumerate(turns, 1))
    size = max(1, len(releases) // _SLICES)
    timeline = [
        (
            round(releases[min(start + size, len(releases)) - 1].at - began, 1),
            min(start + size, len(releases)),
            round(median(turns[start : start + size])),
        )
        for start in range(0, len(releases), size)
    ]
    return Order(
        round(correlation(range(len(turns)), turns), 4),
        late[-1],
        late[len(late) * 99 // 100],
        timeline,
    )
