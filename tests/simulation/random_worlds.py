"""Larger random worlds: a graph in any possible state, and many actors."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from tests.simulation.actors import ActorSpec
from tests.simulation.matrix import LAGGING
from tests.simulation.others import cancellation, live, older_live, retry, task_ends, time_passes
from tests.simulation.reopenings import cascade, extension, fix, whole_retry
from tests.simulation.world import Node, Scenario, delivery, sweep

NAMES = "abcdefghijkl"
"""At most twelve children."""


def random_node(dice: Random, after: str, before: Mapping[str, Node]) -> Node:
    """Return a child in a state that its predecessors allow."""
    states = [before[name].status for name in after]
    if any(state in {"failed", "skipped"} for state in states):
        return Node(dice.choice(["blocked", "skipped"]), after)
    if any(state != "succeeded" for state in states):
        return Node("blocked", after)
    kind = dice.choice(
        ["due", "claimed", "claimed", "runs", "ended", "fell", "done", "done", "failed", "left"]
    )
    if kind == "due":
        return Node(dice.choice(["blocked", "ready"]), after)
    if kind == "claimed":
        return Node("releasing", after, left_task=dice.choice([None, "RUNNING", "COMPLETED"]))
    if kind == "left":
        return Node("blocked", after, left_task=dice.choice(["RUNNING", "COMPLETED", "FAILED"]))
    if kind == "ended":
        return Node(
            "released", after, task="COMPLETED", build_passed=dice.choice([None, True, False])
        )
    if kind == "fell":
        return Node("released", after, task=dice.choice(["FAILED", "CANCELLED", "TIMED_OUT"]))
    if kind == "runs":
        return Node("released", after, task=dice.choice(["RUNNING", "SUBMITTED"]))
    if kind == "failed":
        return Node("failed", after, task="FAILED")
    return Node("succeeded", after, task="COMPLETED")


def random_nodes(dice: Random, most: int = len(NAMES)) -> dict[str, Node]:
    """Return a graph of up to ``most`` children without cycles."""
    nodes: dict[str, Node] = {}
    for name in NAMES[: dice.randint(2, most)]:
        before = [other for other in nodes if dice.random() < min(0.5, 2 / len(nodes))]
        nodes[name] = random_node(dice, "".join(before), nodes)
    return nodes


def random_scenario(seed: int) -> Scenario:
    """Return the world of a seed: up to twelve children, three to six actors, two faults."""
    dice = Random(f"world/{seed}")  # noqa: S311 - a schedule
    nodes = random_nodes(dice)
    released = [name for name, node in nodes.items() if node.task in {"RUNNING", "SUBMITTED"}]
    ended = [name for name, node in nodes.items() if node.status == "released"]
    failed = [name for name, node in nodes.items() if node.status == "failed"]
    due = [name for name, node in nodes.items() if node.status in {"blocked", "ready"}]
    older, old_claims = dice.random() < 0.3, dice.random() < 0.3
    make = older_live if older else live
    actors: list[ActorSpec] = [sweep(1), sweep(2)]
    actors.append(make(dice.choice(ended) if ended else None, number=1))
    if released:
        actors.append(dice.choice([task_ends, cancellation])(dice.choice(released)))
    if failed and dice.random() < 0.5:
        name = dice.choice(failed)
        skipped = [
            key for key, node in nodes.items() if node.status == "skipped" and name in node.after
        ]
        again = [retry(name, *skipped), fix(name, *skipped), whole_retry()]
        actors.append(dice.choice(again))
    if dice.random() < 0.2:
        actors.append(extension("x", "y", after=dice.choice(list(nodes))))
    done = [name for name, node in nodes.items() if node.status == "succeeded"]
    if done and dice.random() < 0.2:
        name = dice.choice(done)
        actors.append(cascade(name, *(key for key in nodes if name in nodes[key].after)))
    if due and dice.random() < 0.5:
        actors.append(delivery(dice.choice(due)))
    if old_claims:
        actors.append(time_passes(1000))
    return Scenario(
        f"world {seed}",
        nodes,
        actors,
        faults=dice.randint(0, 2),
        lagging=LAGGING,
        one_task=not older and not old_claims,
        converges=True,
        # A retry that stops half-way may leave a skip that nobody can tell from a right one.
        retries=any(actor.name.startswith(("retry", "fix")) for actor in actors),
    )
