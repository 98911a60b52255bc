"""When a sweep goes by the index, and when it has to read everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.operations.coverage import (
    EVERYTHING,
    Coverage,
    Known,
    Scope,
    choose_scope,
    known_from,
)
from reconciler.settings import Settings, load_settings

NOW = 1_000_000.0
EVERY = 3600


def settings(**changes: str) -> Settings:
    names = {"ORCHESTRATION_TABLE_NAME": "rows", "TASK_TABLE_NAME": "tasks"}
    index = {"ACTIVE_INDEX_NAME": "Active", "FULL_SCAN_INTERVAL_SECONDS": str(EVERY)}
    return load_settings({**names, "TASK_EVENTS_TABLE_NAME": "events", **index, **changes})


KNOWN = Known(NOW - 60, ("orch_1", "orch_2"))


@pytest.mark.parametrize("since", [0, 60, EVERY - 1])
def test_by_the_index_while_no_full_scan_is_due_and_all_that_is_stuck_is_known(since: int) -> None:
    scope = choose_scope(settings(), replace(KNOWN, full_ended_at=NOW - since), NOW)
    assert scope.coverage is Coverage.ACTIVE
    assert scope.carried == ("orch_1", "orch_2")


@pytest.mark.parametrize(
    ("known", "changes", "full"),
    [
        (KNOWN, {"ACTIVE_INDEX_NAME": ""}, False),
        (KNOWN, {}, True),
        (Known(), {}, False),
        (Known(None, ()), {}, False),
        (Known(NOW - 60, None), {}, False),
        (Known(NOW - EVERY, ()), {}, False),
        (Known(NOW + 1, ()), {}, False),
        (Known(NOW - 60, (), index_failed_at=NOW - 30), {}, False),
    ],
    ids=[
        *("no index", "asked for", "new", "never full", "not all known", "due", "from the future"),
        "the index failed",
    ],
)
def test_everything_otherwise(known: Known, changes: dict[str, str], *, full: bool) -> None:
    assert choose_scope(settings(**changes), known, NOW, full=full) is EVERYTHING


def summary(**stuck: int) -> dict[str, Any]:
    return {"ended_at": NOW - 60, "stuck": stuck, "complete": True}


def entry(orchestration_id: str) -> dict[str, Any]:
    return {"orchestration_id": orchestration_id, "sub_issue_id": None, "code": "lost_release"}


def test_each_orchestration_that_was_stuck_is_known_once() -> None:
    stuck = [entry("a"), entry("b"), entry("a")]
    found = known_from(summary(), summary(), summary(lost_release=2, over_budget=1), stuck)
    assert found == Known(NOW - 60, ("a", "b"))


@pytest.mark.parametrize(
    ("coverage", "complete", "failed_at"),
    [("active", True, None), ("active", False, NOW - 20), (None, False, None)],
)
def test_an_index_that_could_not_be_read_is_remembered(
    coverage: str | None, *, complete: bool, failed_at: float | None
) -> None:
    last = {**summary(), "coverage": coverage, "complete": complete, "ended_at": NOW - 20}
    assert known_from(last, summary(), summary(), []) == Known(NOW - 60, (), failed_at)


def test_a_list_that_was_cut_says_that_not_all_of_it_is_known() -> None:
    found = known_from(summary(), summary(), summary(lost_release=3), [entry("a"), entry("b")])
    assert found.stuck is None


def test_nothing_is_known_where_no_sweep_was_ever_complete() -> None:
    assert known_from(None, None, None, []) == Known(None, None)


# -- while a full scan is at work


BEGAN = NOW - 600


@pytest.mark.parametrize(
    "known",
    [
        KNOWN,
        replace(KNOWN, full_ended_at=NOW - 10 * EVERY),
        replace(KNOWN, full_ended_at=None),
        replace(KNOWN, full_ended_at=NOW + 1),
        replace(KNOWN, index_failed_at=BEGAN),
        replace(KNOWN, index_failed_at=NOW - 60),
    ],
    ids=["asked for", "due", "never full", "from the future", "failed as it began", "failed since"],
)
def test_beside_a_full_scan_a_sweep_goes_by_the_index(known: Known) -> None:
    """What is due is being made; and an index that failed meanwhile is tried again."""
    found = choose_scope(settings(), known, NOW, full_scan_since=BEGAN)
    assert found == Scope(Coverage.ACTIVE, ("orch_1", "orch_2"))


@pytest.mark.parametrize(
    ("known", "changes", "full"),
    [
        (KNOWN, {"ACTIVE_INDEX_NAME": ""}, False),
        (KNOWN, {}, True),
        (replace(KNOWN, stuck=None), {}, False),
        (replace(KNOWN, index_failed_at=BEGAN - 1), {}, False),
    ],
    ids=["no index", "asked for", "not all known", "it takes the place of the index"],
)
def test_nothing_goes_by_the_index_beside_a_full_scan_otherwise(
    known: Known, changes: dict[str, str], *, full: bool
) -> None:
    """What is chosen then is a full scan, which steps aside for the one at work."""
    found = choose_scope(settings(**changes), known, NOW, full=full, full_scan_since=BEGAN)
    assert found is EVERYTHING
