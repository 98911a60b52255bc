"""What `reconciler doctor` says of the index that sweeps use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from reconciler.doctor.findings import Level
from reconciler.doctor.shapes import (
    MANY_ROWS,
    Wanted,
    check_shape,
    mention_an_index,
    wanted_tables,
)
from reconciler.stores.rows import ACTIVE_ATTRIBUTES
from reconciler.tables import ORCHESTRATION, TASK, Index
from tests.integration.doctored import BY_INDEX, INDEX, LIGHTER, SETTINGS, look, of, rebuilt
from tests.support.world import World

pytestmark = pytest.mark.integration


KEYS = ("child_status", "orchestration_id")


@LIGHTER
@pytest.mark.parametrize(
    ("index", "said"),
    [
        (None, [f"index {INDEX} is missing"]),
        (Index(INDEX, KEYS[::-1]), ["has the key orchestration_id + child_status"]),
        (Index(INDEX, KEYS[:1]), ["has the key child_status, and"]),
        (
            Index(INDEX, KEYS, "KEYS_ONLY"),
            ["does not project child_task_id, depends_on, updated_at"],
        ),
        (
            Index(INDEX, KEYS, "INCLUDE", ("depends_on", "title")),
            ["does not project child_task_id, updated_at"],
        ),
        (
            Index(INDEX, ("child_status", "updated_at"), "INCLUDE", ("child_task_id",)),
            ["has the key child_status + updated_at", "does not project depends_on"],
        ),
    ],
)
def test_an_unusable_index_is_a_failure(world: World, index: Index | None, said: list[str]) -> None:
    more = () if index is None else (index,)
    table = replace(ORCHESTRATION, indexes=(*ORCHESTRATION.indexes, *more))
    found = look(
        world, **rebuilt(world, "orchestration_table_name", table), active_index_name=INDEX
    )
    failed = [f for f in found if f.level is Level.FAILURE and f.check == "tables"]
    assert len(failed) == len(said)
    for finding, words in zip(failed, said, strict=True):
        assert words in finding.found
        assert "docs/deploying.md" in finding.advice
        assert "ACTIVE_INDEX_NAME" in finding.advice
    # A query of a missing index fails with any rights: that advice is about the index too.
    tried = [f for f in found if f.check == "permissions" and f.level is Level.FAILURE]
    assert all(INDEX in f.found and "ACTIVE_INDEX_NAME" in f.advice for f in tried)
    assert tried or index is not None


@pytest.mark.parametrize(
    "index", [Index(INDEX, KEYS), Index(INDEX, KEYS, "INCLUDE", (*ACTIVE_ATTRIBUTES[3:], "title"))]
)
def test_an_index_may_project_more_than_needed(world: World, index: Index) -> None:
    table = replace(ORCHESTRATION, indexes=(*ORCHESTRATION.indexes, index))
    found = look(
        world, **rebuilt(world, "orchestration_table_name", table), active_index_name=INDEX
    )
    assert of(Level.FAILURE, found) == []


@LIGHTER
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"IndexStatus": "CREATING", "Backfilling": False}, "is CREATING"),
        ({"IndexStatus": "CREATING", "Backfilling": True}, "is CREATING, and is still being fill"),
        ({"IndexStatus": "DELETING"}, "is DELETING"),
        ({"IndexStatus": "UPDATING"}, None),
        ({"IndexStatus": "ACTIVE", "Backfilling": False}, None),
    ],
)
def test_an_inactive_index_is_reported(
    make_world: Callable[..., World], changes: dict[str, Any], said: str | None
) -> None:
    """The description is DynamoDB's; an emulator's index is ready at once."""
    wanted, described = by_index(make_world)
    *others, index = described["GlobalSecondaryIndexes"]
    described["GlobalSecondaryIndexes"] = [*others, {**index, **changes}]
    failed = [f for f in check_shape(wanted, described, None) if f.level is not Level.OK]
    assert [said in f.found for f in failed if said] == ([True] if said else [])
    assert all("unset ACTIVE_INDEX_NAME until it is ACTIVE" in f.advice for f in failed)


@LIGHTER
def test_an_index_key_must_be_a_string(make_world: Callable[..., World]) -> None:
    wanted, described = by_index(make_world)
    for attribute in described["AttributeDefinitions"]:
        if attribute["AttributeName"] == "child_status":
            attribute["AttributeType"] = "N"
    (failed,) = check_shape(wanted, described, None)
    assert "child_status of type N" in failed.found


def by_index(make_world: Callable[..., World]) -> tuple[Wanted, dict[str, Any]]:
    world = make_world(**BY_INDEX)
    wanted = wanted_tables(world.settings)[0]
    table: Any = world.client.describe_table(TableName=wanted.name)["Table"]
    assert table["GlobalSecondaryIndexes"][-1]["IndexName"] == INDEX
    return wanted, table


def test_the_doctor_suggests_an_index_for_large_tables() -> None:
    without, tasks, *_ = wanted_tables(SETTINGS)
    with_one = wanted_tables(SETTINGS.model_copy(update={"active_index_name": INDEX}))[0]
    many = {"ItemCount": MANY_ROWS + 1}
    (found,) = mention_an_index(without, many)
    assert found.level is Level.OK
    assert "5,000,001 rows" in found.found
    assert "ACTIVE_INDEX_NAME" in found.found
    for wanted, described in ((with_one, many), (tasks, many), (without, {"ItemCount": MANY_ROWS})):
        assert list(mention_an_index(wanted, described)) == []


def test_time_to_live_on_another_attribute_is_reported(world: World) -> None:
    changed = rebuilt(world, "orchestration_table_name", replace(ORCHESTRATION, ttl=False))
    world.client.update_time_to_live(
        TableName=changed["orchestration_table_name"],
        TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"},
    )
    assert any("expires" in f.found for f in look(world, **changed) if f.level is Level.WARNING)


def test_a_stream_without_new_images_is_a_failure(world: World) -> None:
    changed = rebuilt(world, "task_table_name", replace(TASK, stream=False))
    world.client.update_table(
        TableName=changed["task_table_name"],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
    )
    assert any("KEYS_ONLY" in f.found for f in look(world, **changed) if f.level is Level.FAILURE)
