"""The demo sets up a platform that comes to the blueprints' ends if nothing is lost."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from reconciler.demo.run import CAP, Plan, seeds
from reconciler.demo.shapes import Blueprint


def widest(blueprint: Blueprint) -> int:
    """Return how many of its children can run at once: those as far from a root as each other."""
    depth: dict[str, int] = {}
    for child in blueprint.children:
        depth[child.key] = 1 + max((depth[key] for key in child.depends_on), default=0)
    return max(Counter(depth.values()).values())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("orchestrations", [3, 24, 200])
def test_no_user_can_run_into_the_cap(orchestrations: int, seed: int) -> None:
    """A task beyond it fails on admission, and its child with it: that is no lost event."""
    running: dict[str, int] = defaultdict(int)
    for user, blueprint in seeds(Plan(orchestrations=orchestrations, seed=seed)):
        running[user] += widest(blueprint)
    assert max(running.values()) < CAP
