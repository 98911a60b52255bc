"""How many children one transaction skips: the limits on writes and on bytes."""

from __future__ import annotations

from reconciler.domain.model import Child, ChildStatus
from reconciler.domain.planning import Skip
from reconciler.repair.repairer import fit_together


def due(number: int, characters: int) -> tuple[Child, Skip]:
    key = f"c{number}"
    item = {"description": {"S": "x" * characters}}
    child = Child("orch_1", key, ChildStatus.BLOCKED, "blocked", item=item)
    return child, Skip(key, "lost_skip", None, "a")


def sizes(count: int, characters: int) -> list[int]:
    groups = list(fit_together(due(number, characters) for number in range(count)))
    keys = [child.sub_issue_id for group in groups for child in group]
    assert keys == [f"c{number}" for number in range(count)], "each child once, in order"
    return [len(group) for group in groups]


def test_one_transaction_skips_at_most_98_rows() -> None:
    """The cause and the event take the two remaining writes."""
    assert sizes(200, 100) == [98, 98, 4]


def test_large_rows_stay_below_the_4_mb_limit() -> None:
    """The conditions also contain each row's dependencies."""
    assert sizes(16, 200_000) == [7, 7, 2]


def test_a_row_of_any_size_is_skipped() -> None:
    assert sizes(4, 400_000) == [3, 1]
    assert sizes(1, 2_000_000) == [1]


def test_one_transaction_takes_at_most_1500000_bytes() -> None:
    def cut(*row_bytes: int) -> list[int]:
        named = len("description")
        rows = (due(number, size - named) for number, size in enumerate(row_bytes))
        return [len(group) for group in fit_together(rows)]

    half = 750_000
    assert cut(half, half) == [2]
    assert cut(half, half + 1) == [1, 1]
    assert cut(half, half, half, half) == [2, 2]
    assert cut(half, half, half, half + 1) == [2, 1, 1]
