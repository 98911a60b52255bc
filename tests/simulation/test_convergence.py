"""From any state of a graph, sweeps reach the end that the outcomes of its tasks dictate."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.actors import ClockHand
from tests.simulation.invariants import dictated_end
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.random_worlds import random_nodes
from tests.simulation.recovery import recover
from tests.simulation.world import ORCH, START, Node, Scenario, fill, idempotency_key, task_id

pytestmark = pytest.mark.simulation

ENDS = ("COMPLETED", "COMPLETED", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


def graph_end(nodes: Mapping[str, Node], outcomes: Mapping[str, str]) -> dict[str, str]:
    """Return how each child ends, from the graph and the drawn outcomes alone."""
    ends: dict[str, str] = {}
    for name, node in nodes.items():
        if any(ends[before] != "succeeded" for before in node.after):
            ends[name] = "skipped"
            continue
        ended = node.left_task if node.left_task is not None else node.task
        passed = node.build_passed is not False if node.left_task is None else True
        if ended in {None, "RUNNING", "SUBMITTED"}:
            ended = outcomes[name]
        ends[name] = "succeeded" if ended == "COMPLETED" and passed else "failed"
    return ends


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), data=st.data())
def test_sweeps_reach_the_end_that_the_outcomes_dictate(seed: int, data: st.DataObject) -> None:
    """The oracle uses the graph alone; the invariants are checked at every write."""
    nodes = random_nodes(Random(seed))  # noqa: S311 - a graph
    outcomes = {name: data.draw(st.sampled_from(ENDS), label=name) for name in nodes}
    scenario = Scenario("any state", nodes, [])
    database = MemoryDynamoDB()
    fill(database, scenario)

    def outcome(task: Mapping[str, Any]) -> str:
        key = task["idempotency_key"]["S"]
        return next(
            outcomes[name]
            for name in nodes
            if key in {idempotency_key(name), idempotency_key(name, task_id(name))}
        )

    recover(database, ClockHand(START), scenario, outcome)
    rows = database.tables["OrchestrationTable"].items
    found = {name: rows[ORCH, name]["child_status"]["S"] for name in nodes}
    expected = graph_end(nodes, outcomes)
    assert found == expected
    by_rows = dictated_end(rows, database.tables["TaskTable"].items)
    assert {key[1]: end for key, end in by_rows.items()} == expected, "the two oracles agree"


def test_one_sweep_repairs_ten_lost_terminals() -> None:
    """It also releases the child behind them."""
    names = "abcdefghij"
    nodes = {
        name: Node("released", names[index - 1] if index else "", task="COMPLETED")
        for index, name in enumerate(names)
    }
    nodes["k"] = Node("blocked", "j")
    database, scenario = MemoryDynamoDB(), Scenario("ten", nodes, [])
    fill(database, scenario)
    rounds = recover(database, ClockHand(START), scenario, lambda _task: "COMPLETED")
    assert rounds == 2, "the first round repairs all ten and releases the last child"
    sweeps = {
        event["metadata"]["M"]["sub_issue_id"]["S"]
        for event in database.tables["TaskEventsTable"].items.values()
        if event["event_type"]["S"] == "orchestration_recovered"
    }
    assert sweeps == {*names, "k"}
    states = {key[1]: row for key, row in database.tables["OrchestrationTable"].items.items()}
    assert all(states[name]["child_status"] == {"S": "succeeded"} for name in nodes)
