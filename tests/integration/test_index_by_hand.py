"""The index of active children, added and removed with the commands of docs/deploying.md."""

from __future__ import annotations

import json

import pytest

from docs.commands import ROOT, shown, simple_commands
from reconciler.sweeping.cron import run_cron_sweep
from reconciler.sweeping.summary import SweepSummary
from reconciler.tables import ORCHESTRATION, with_active_index
from tests.integration.test_operating import typed
from tests.support.processes import until
from tests.support.world import World

pytestmark = pytest.mark.integration

NAME = "ChildStatusIndex"
COMMANDS = {
    next((verb for verb in ("Create", "Delete") if f'"{verb}"' in each.text), "look"): command.words
    for each in shown(ROOT / "docs" / "deploying.md")
    for command in simple_commands(each)
    if command.words[:2] == ("aws", "dynamodb")
}


def sweep(world: World, index: str | None) -> SweepSummary:
    world.settings = world.settings.model_copy(update={"active_index_name": index})
    reconciler = world.reconciler()
    return run_cron_sweep(reconciler, holder="cron").summary


def status(world: World) -> str | None:
    """Return the status of the index as the documented command shows it."""
    described = typed(world, COMMANDS["look"])["Table"]
    for index in described.get("GlobalSecondaryIndexes", ()):
        if index["IndexName"] == NAME and not index.get("Backfilling"):
            return str(index.get("IndexStatus", "ACTIVE"))
    return None


def test_an_index_is_added_and_removed_in_use(world: World) -> None:
    assert set(COMMANDS) == {"Create", "look", "Delete"}
    done = world.seed({"a": []}, {"a": "succeeded"})
    world.change(done, "#meta", rollup_posted_at=world.ago(0))
    assert sweep(world, None).complete

    typed(world, COMMANDS["Create"])
    until("the index to be filled", lambda: status(world) == "ACTIVE")
    stranded = world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})
    by_index = sweep(world, NAME)
    assert by_index.complete
    assert world.statuses(stranded) == {"a": "succeeded", "b": "released"}

    assert sweep(world, None).complete
    typed(world, COMMANDS["Delete"])
    assert status(world) in {None, "DELETING"}
    after = sweep(world, None)
    assert after.complete


def test_the_added_index_has_the_expected_shape() -> None:
    words = COMMANDS["Create"]
    ((update,),) = (
        json.loads(words[at + 1]) for at, w in enumerate(words) if w.endswith("-index-updates")
    )
    made, asked = update["Create"], with_active_index(ORCHESTRATION, NAME).indexes[-1]
    assert made["IndexName"] == asked.name
    assert tuple(key["AttributeName"] for key in made["KeySchema"]) == asked.keys
    assert made["Projection"]["ProjectionType"] == asked.projection
    assert set(made["Projection"]["NonKeyAttributes"]) == set(asked.include)
