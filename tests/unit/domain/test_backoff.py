"""Backoff: repeated failures pause repairs for a growing time, until the rows change."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.domain.backoff import Attempts, after_failure
from reconciler.domain.model import Child, ChildStatus, Orchestration, moment
from tests.support.strategies import NOW, ago

INTERVAL = timedelta(minutes=5)


@pytest.mark.parametrize(
    ("retry_at", "fingerprint", "expected"),
    [
        (ago(-1), "f", True),
        (ago(0), "f", False),  # the pause is just over
        (ago(1), "f", False),
        (ago(-1), "g", False),  # the rows have changed
        (None, "f", False),
        ("soon", "f", False),
        (ago(-6 * 3600 - 300), "f", True),  # the longest pause, by a clock slightly ahead
        (ago(-6 * 3600 - 301), "f", False),  # only a wrong clock writes this
    ],
)
def test_backoff_ends_with_time_or_a_changed_row(
    retry_at: str | None,
    fingerprint: str,
    expected: bool,  # noqa: FBT001
) -> None:
    """A retry time that only a wrong clock can have written does not count."""
    attempts = Attempts(3, "it broke", ago(60), retry_at, "f")
    assert attempts.backed_off(NOW, fingerprint) is expected


def test_the_message_names_the_pause_and_the_failure() -> None:
    attempts = Attempts(3, "it broke", ago(60), "later", "f")
    assert attempts.says == "left alone until later after 3 failures, the last: it broke"


def pauses(failures: int, interval: timedelta = INTERVAL) -> list[float | None]:
    """Return the pause after each failure, in seconds."""
    held, found = None, []
    for number in range(failures):
        held = after_failure(held, "it broke", "f", interval, NOW, counts=True)
        assert held.failures == number + 1
        until = moment(held.retry_at)
        found.append(None if until is None else (until - NOW).total_seconds())
    return found


def test_the_pause_doubles_up_to_six_hours() -> None:
    """The first two failures cause no pause."""
    hours = 3600
    assert pauses(11) == [
        None, None, 300, 600, 1200, 2400, 4800, 9600, 19_200, 6 * hours, 6 * hours,
    ]  # fmt: skip


def test_a_short_interval_still_reaches_the_longest_pause() -> None:
    assert pauses(19, timedelta(seconds=1))[-3:] == [16_384, 21_600, 21_600]


def test_an_uncounted_failure_is_recorded_without_a_pause() -> None:
    """An example is a text that the guardrail blocks: siblings go first, and it is tried again."""
    held = None
    for _ in range(5):
        held = after_failure(held, "x" * 600, "f", INTERVAL, NOW, counts=False)
    assert held == Attempts(0, "x" * 500, ago(0), None, "f")


def test_an_uncounted_failure_does_not_reset_the_count() -> None:
    """The child is tried again at once, and the next failure that counts continues the count."""
    held = None
    for counts in (True, True, True, False):
        held = after_failure(held, "it broke", "f", INTERVAL, NOW, counts=counts)
    assert held == Attempts(3, "it broke", ago(0), None, "f")
    held = after_failure(held, "it broke", "f", INTERVAL, NOW, counts=True)
    assert held.retry_at == ago(-600)


def test_a_failure_counts_only_while_its_rows_stand() -> None:
    child = Child("orch_1", "a", ChildStatus.BLOCKED, "blocked")
    whole = Orchestration("orch_1", None, {"a": child})
    record = Attempts(1, "x", "2026-06-09T12:00:00Z", None, whole.fingerprint_of("a"))
    assert replace(whole, attempts={"a": record}).failing == {"a"}
    assert replace(whole, attempts={"a": replace(record, fingerprint="older")}).failing == set()
