"""The scenarios that are explored exhaustively: small graphs, two or three actors, every order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from tests.simulation.world import (
    START,
    Node,
    Scenario,
    cancellation,
    delivery,
    live,
    older_live,
    removal,
    retry,
    sweep,
    task_ends,
    time_passes,
)

LAGGING = frozenset({"IdempotencyIndex"})
DONE = Node("succeeded", task="COMPLETED")
ENDED = Node("released", task="COMPLETED")
RUNNING = Node("released", task="RUNNING")
FELL = Node("released", task="FAILED")


def pair(first: Node = ENDED, second: str = "blocked") -> dict[str, Node]:
    """A, then B."""
    return {"a": first, "b": Node(second, "a")}


def chain(first: Node = ENDED) -> dict[str, Node]:
    """A, then B, then C."""
    return {"a": first, "b": Node("blocked", "a"), "c": Node("blocked", "b")}


def diamond(left: Node = ENDED, right: Node = ENDED) -> dict[str, Node]:
    """A, then B and C, then D, which waits for both."""
    from dataclasses import replace  # noqa: PLC0415 - one use

    return {
        "a": DONE,
        "b": replace(left, after="a"),
        "c": replace(right, after="a"),
        "d": Node("blocked", "bc"),
    }


def fan_out(first: Node = ENDED) -> dict[str, Node]:
    """A, then B, C and D."""
    return {"a": first, **{name: Node("blocked", "a") for name in "bcd"}}


GRAPHS: Mapping[str, Mapping[str, Node]] = {
    "pair": pair(),
    "chain": chain(),
    "diamond": diamond(),
    "fan-out": fan_out(),
}


def _everybody_once() -> list[Scenario]:
    """Each graph with a sweep of ours and one other actor, and with a fault."""
    found = []
    for name, nodes in GRAPHS.items():
        finishing = "b" if name == "diamond" else "a"
        found += [
            Scenario(f"{name}: two sweeps", nodes, [sweep(1), sweep(2)], 1, LAGGING),
            Scenario(f"{name}: sweep, live", nodes, [sweep(1), live(finishing)], 1, LAGGING),
            Scenario(
                f"{name}: sweep, older live",
                nodes,
                [sweep(1), older_live(finishing)],
                1,
                LAGGING,
                one_task=False,
            ),
        ]
    return found


def _small() -> list[Scenario]:
    failing, skipped = Node("failed", task="FAILED"), Node("skipped", "a")
    retried = {"a": failing, "b": skipped}
    running = pair(RUNNING)
    claim = pair(DONE, "releasing") | {
        "b": Node("releasing", "a", updated_at=START - timedelta(seconds=60))
    }
    return [
        Scenario(
            "retry, sweep, live", retried, [sweep(1), retry("a", "b"), live()], 0, retries=True
        ),
        Scenario(
            "retry, two sweeps", retried, [sweep(1), retry("a", "b"), sweep(2)], 1, retries=True
        ),
        Scenario(
            "late verdict on a retry",
            pair(FELL),
            [sweep(1), live("a"), retry("a", "b")],
            0,
            LAGGING,
            retries=True,
        ),
        Scenario("cancellation, sweep, live", running, [sweep(1), cancellation("a"), live("a")], 0),
        Scenario("task ends, two sweeps", running, [task_ends("a"), sweep(1), sweep(2)], 1),
        Scenario(
            "time to live, sweep",
            pair(),
            [sweep(1), removal("b", "a", "#meta")],
            1,
            converges=False,
        ),
        Scenario(
            "time to live, sweep, live",
            pair(),
            [sweep(1), live("a"), removal("#meta", "b")],
            0,
            converges=False,
        ),
        Scenario(
            "an abandoned claim, two sweeps",
            pair(DONE) | {"b": Node("releasing", "a")},
            [sweep(1), sweep(2)],
            1,
            LAGGING,
        ),
        Scenario(
            "an abandoned claim with its task, two sweeps",
            pair(DONE) | {"b": Node("releasing", "a", left_task="RUNNING")},
            [sweep(1), sweep(2)],
            1,
        ),
        Scenario("a claim that grows old", claim, [sweep(1), time_passes(850), sweep(2)], 0),
        Scenario(
            "a live reconciler that wakes up too late",
            pair(DONE),
            [live(), time_passes(1000), sweep(1)],
            0,
            one_task=False,
        ),
        Scenario(
            "two deliveries and a sweep",
            pair(DONE),
            [delivery("b", 1), delivery("b", 2), sweep(1)],
            0,
            LAGGING,
        ),
        Scenario("pair: two sweeps, live", pair(), [sweep(1), sweep(2), live("a")], 0, LAGGING),
        Scenario(
            "pair: two sweeps, older live",
            pair(),
            [sweep(1), sweep(2), older_live("a")],
            0,
            LAGGING,
            one_task=False,
        ),
    ]


def _adversarial() -> list[Scenario]:
    """The five schedules of the platform's own analysis."""
    both = diamond(RUNNING, RUNNING)
    return [
        Scenario(
            "1 two predecessors finish at once and neither sees the other",
            both,
            [task_ends("b"), task_ends("c"), sweep(1)],
            1,
        ),
        Scenario(
            "2 both see it and both release",
            diamond(),
            [live("b", number=1), live("c", number=2), sweep(1)],
            0,
        ),
        Scenario(
            "3 redelivery during a release",
            pair(DONE),
            [delivery("b", 1, ("a",)), delivery("b", 2, ("a",))],
            2,
            LAGGING,
        ),
        Scenario(
            "4 a failed leg beside a succeeding one",
            diamond(FELL, ENDED),
            [live("b", number=1), live("c", number=2), sweep(1)],
            0,
        ),
        Scenario(
            "5 a skip racing a release",
            {"a": FELL, "b": Node("blocked", "a"), "c": DONE, "d": Node("ready", "bc")},
            [sweep(1), live("a"), delivery("d", 1)],
            0,
        ),
    ]


ADVERSARIAL = _adversarial()
SCENARIOS = [*_everybody_once(), *_small()]

LONG = [
    Scenario(
        f"{name}: two sweeps, live, long",
        nodes,
        [sweep(1), sweep(2), live("b" if name == "diamond" else "a")],
        1,
        LAGGING,
    )
    for name, nodes in GRAPHS.items()
]
"""Too many states for every build."""
