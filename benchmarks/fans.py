"""Large shapes: fan-out, join and storm, with the counts that show that the cost is linear.

fan-out: one child has succeeded and all others are due. join: one child waits for all others,
which have succeeded. storm: many orchestrations with up to a hundred due children each. With a
budget, they all belong to one user, and every release writes the row of the user's reservations.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.measured import Measurement, measure
from benchmarks.mix import WireItem
from benchmarks.ours import settings_of
from benchmarks.place import Place, fresh_place
from benchmarks.runs import Plan, Say
from benchmarks.seeding import BatchWriter
from reconciler.domain.model import timestamp
from reconciler.tables import create_tables_of

_STORM_CHILDREN = 100
_STRIDE = 7919
_USER = "user-1"


def _rows(
    name: str, after: dict[str, list[str]], succeeded: set[str], at: str
) -> Iterator[WireItem]:
    common: WireItem = {
        "orchestration_id": {"S": name},
        "repo": {"S": "acme/shop"},
        "parent_issue_ref": {"S": "PARENT-1"},
        "credentials_ref": {"S": "workspace-1"},
        "created_at": {"S": at},
        "updated_at": {"S": at},
    }
    for key, before in after.items():
        yield {
            **common,
            "sub_issue_id": {"S": key},
            "depends_on": {"L": [{"S": earlier} for earlier in before]},
            "child_status": {"S": "succeeded" if key in succeeded else "blocked"},
            "title": {"S": f"Part {key}"},
            "description": {"S": "Move the totals behind one function. " * 10},
        }
    yield {
        **common,
        "sub_issue_id": {"S": "#meta"},
        "child_count": {"N": str(len(after))},
        "platform_user_id": {"S": _USER},
    }


def fan_out(children: int) -> Iterator[WireItem]:
    """Yield the rows of one orchestration in which ``children`` are due at once."""
    keys = [f"c{number:05}" for number in range(children)]
    yield from _rows("orch_fan", {"a": [], **{key: ["a"] for key in keys}}, {"a"}, _hour_ago())


def join(predecessors: int) -> Iterator[WireItem]:
    """Yield the rows of one child that waits for ``predecessors``, which have all succeeded."""
    keys = [f"c{number:05}" for number in range(predecessors)]
    graph = {**{key: list[str]() for key in keys}, "z": keys}
    yield from _rows("orch_join", graph, set(keys), _hour_ago())


def storm(children: int) -> Iterator[WireItem]:
    """Yield at least four orchestrations of one user, each with at most 100 due children."""
    yield from storm_of(children, min(_STORM_CHILDREN, children // 4))


def storm_of(children: int, each: int, spread_seconds: float | None = None) -> Iterator[WireItem]:
    """Yield the rows of one user's orchestrations, each but the last with ``each`` due children.

    No two orchestrations have been due for the same time, and their age does not follow their ids.
    ``spread_seconds``: between the longest and the shortest time; by default, one second per
    orchestration.
    """
    count = -(-children // each)
    for number in range(count):
        due = min(each, children - number * each)
        graph = {"a": list[str](), **{f"c{child:05}": ["a"] for child in range(due)}}
        apart = 1.0 if spread_seconds is None else spread_seconds / count
        at = _hour_ago(older_by=number * _STRIDE % count * apart)
        yield from _rows(f"orch_storm{number:05}", graph, {"a"}, at)


SHAPES = {"fan-out": fan_out, "join": join, "storm": storm, "storm on a budget": storm}
SIZES = {"fan-out": 3_000, "join": 2_000, "storm": 10_000, "storm on a budget": 2_000}


def _hour_ago(older_by: float = 0) -> str:
    return timestamp(datetime.now(UTC) - timedelta(hours=1, seconds=older_by))


def run(shape: str, size: int, plan: Plan, say: Say) -> Measurement:
    """Sweep one shape of a size, and check that everything due was released."""
    with fresh_place() as place:
        say(f"{shape} of {size:,}")
        seed_shape(place, SHAPES[shape](size))
        budget = {
            "user_concurrency_table_name": place.users,
            "max_concurrent_tasks_per_user": size,
        }
        settings = budget if shape.endswith("budget") else {}
        found = measure(plan.job("sweep", place, segments=4, settings=settings))
    due = 1 if shape == "join" else size
    if found.facts["released"] != due or found.facts["errors"]:
        raise RuntimeError(f"released {found.facts['released']} of {due}: {found.facts}")
    return found


def seed_shape(place: Place, rows: Iterator[WireItem]) -> None:
    """Write a shape into fresh tables."""
    settings = settings_of(place, user_concurrency_table_name=place.users)
    create_tables_of(place.client(), settings)
    writer = BatchWriter(place)
    for row in rows:
        writer.put(place.orchestrations, row)
    writer.flush()


def facts_of(shape: str, size: int, found: Measurement) -> dict[str, Any]:
    """Return the facts to record with a measurement."""
    due = 1 if shape == "join" else size
    return {"shape": shape, "size": size, "requests_per_release": found.requests / due}
