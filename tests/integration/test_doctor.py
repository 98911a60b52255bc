"""The doctor finds and names each problem, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.clock import utc_now
from reconciler.doctor.findings import Level
from reconciler.doctor.shapes import (
    wanted_tables,
)
from reconciler.sweeping.cron import run_cron_sweep
from reconciler.tables import ORCHESTRATION, TASK, Index, Table
from tests.integration.doctored import BY_INDEX, INDEX, LIGHTER, look, of, rebuilt
from tests.integration.test_policy import EVERYTHING, OTHER_SERVICES
from tests.support.aws_stub import aws_stub
from tests.support.world import World

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("more", [{}, BY_INDEX], ids=["by scan", "by index"])
def test_a_healthy_world_passes_every_check(
    make_world: Callable[..., World], more: dict[str, str]
) -> None:
    with aws_stub() as aws:
        world = make_world(**EVERYTHING, **more)
        world.others = dict.fromkeys(OTHER_SERVICES, aws.url)
        world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})
        # The world's clock may be ahead of the real one, which the doctor uses.
        world.clock.now = utc_now()
        reconciler = world.reconciler()
        run_cron_sweep(reconciler, holder="cron", segments=1)
        invoked = list(aws.invoked)
        found = look(world)
    assert {finding.level for finding in found} == {Level.OK}
    titles = [w.title for w in wanted_tables(world.settings)]
    assert len(titles) == 6
    for check in ("tables", "permissions"):
        assert [f.subject for f in found if f.check == check] == titles
        of_the_index = [f for f in found if f.check == check and INDEX in f.found]
        assert len(of_the_index) == len(more), check
    assert aws.invoked == invoked


@LIGHTER
def test_a_missing_table_is_a_failure(world: World) -> None:
    found = look(world, task_table_name="nowhere")
    assert of(Level.FAILURE, found) == [("tables", "TaskTable")]
    (failed,) = (f for f in found if f.level is Level.FAILURE)
    assert "nowhere" in failed.found
    assert "TASK_TABLE_NAME" in failed.advice


@LIGHTER
def test_swapped_tables_are_a_failure(world: World) -> None:
    s = world.settings
    found = look(world, task_table_name=s.task_events_table_name)
    assert ("tables", "TaskTable") in of(Level.FAILURE, found)
    assert any("task_id + event_id" in f.found for f in found)


SHAPES: list[tuple[str, Table, Level, str]] = [
    (
        "orchestration_table_name",
        replace(ORCHESTRATION, indexes=ORCHESTRATION.indexes[1:]),
        Level.FAILURE,
        "ChildTaskIndex is missing",
    ),
    (
        "orchestration_table_name",
        replace(ORCHESTRATION, indexes=ORCHESTRATION.indexes[:1]),
        Level.WARNING,
        "ChildBranchIndex is missing",
    ),
    (
        "task_table_name",
        replace(TASK, indexes=(Index("IdempotencyIndex", ("user_id",)), *TASK.indexes[3:])),
        Level.FAILURE,
        "IdempotencyIndex has the key user_id",
    ),
    (
        "orchestration_table_name",
        replace(
            ORCHESTRATION,
            indexes=(
                ORCHESTRATION.indexes[0],
                replace(ORCHESTRATION.indexes[1], projection="KEYS_ONLY"),
            ),
        ),
        Level.WARNING,
        "ChildBranchIndex does not project all attributes",
    ),
    ("task_table_name", replace(TASK, stream=False), Level.FAILURE, "no stream"),
    (
        "orchestration_table_name",
        replace(ORCHESTRATION, ttl=False),
        Level.WARNING,
        "time to live is off",
    ),
]


def test_a_table_of_another_shape_is_reported(world: World) -> None:
    for number, (which, table, level, said) in enumerate(SHAPES):
        found = look(world, **rebuilt(world, which, table, number))
        assert any(f.level is level and said in f.found for f in found), (said, found)
        # Permissions are missing only on an index that is missing.
        denied = [f for f in found if f.check == "permissions" and f.level is not Level.OK]
        assert all("ndex" in f.found for f in denied)
