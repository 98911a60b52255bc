"""What keeps failing is left alone for a growing time, until its rows change."""

from __future__ import annotations

from datetime import timedelta

import pytest

from reconciler.domain.backoff import Attempts, after_failure
from reconciler.domain.model import moment
from tests.support.strategies import NOW, ago

INTERVAL = timedelta(minutes=5)


@pytest.mark.parametrize(
    ("retry_at", "fingerprint", "expected"),
    [
        (ago(-1), "f", True),
        (ago(0), "f", False),  # its pause is just over
        (ago(1), "f", False),
        (ago(-1), "g", False),  # its rows have changed
        (None, "f", False),
        ("soon", "f", False),
        (ago(-6 * 3600 - 300), "f", True),  # as long as a pause can be, by a clock a little ahead
        (ago(-6 * 3600 - 301), "f", False),  # only a clock that is wrong writes that
    ],
)
def test_it_is_left_alone_while_its_pause_lasts(
    retry_at: str | None,
    fingerprint: str,
    expected: bool,  # noqa: FBT001
) -> None:
    attempts = Attempts(3, "it broke", ago(60), retry_at, "f")
    assert attempts.backed_off(NOW, fingerprint) is expected


def test_until_when_one_is_left_alone_is_said_with_the_reason() -> None:
    attempts = Attempts(3, "it broke", ago(60), "later", "f")
    assert attempts.says == "left alone until later after 3 failures, the last: it broke"


def pauses(failures: int, interval: timedelta = INTERVAL) -> list[float | None]:
    """How long it is left alone after each failure, in seconds."""
    held, found = None, []
    for number in range(failures):
        held = after_failure(held, "it broke", "f", interval, NOW, counts=True)
        assert held.failures == number + 1
        until = moment(held.retry_at)
        found.append(None if until is None else (until - NOW).total_seconds())
    return found


def test_from_the_third_failure_on_the_pause_doubles_up_to_six_hours() -> None:
    hours = 3600
    assert pauses(11) == [
        None, None, 300, 600, 1200, 2400, 4800, 9600, 19_200, 6 * hours, 6 * hours,
    ]  # fmt: skip


def test_however_short_the_interval_the_longest_pause_is_reached() -> None:
    assert pauses(19, timedelta(seconds=1))[-3:] == [16_384, 21_600, 21_600]


def test_what_does_not_count_is_on_record_and_backs_nothing_off() -> None:
    """A text that the guardrail does not take: its siblings go first, and it is tried again."""
    held = None
    for _ in range(5):
        held = after_failure(held, "x" * 600, "f", INTERVAL, NOW, counts=False)
    assert held == Attempts(0, "x" * 500, ago(0), None, "f")


def test_a_failure_that_does_not_count_ends_no_row_of_those_that_do() -> None:
    """It is tried again at once; the next one that counts goes on from where they were."""
    held = None
    for counts in (True, True, True, False):
        held = after_failure(held, "it broke", "f", INTERVAL, NOW, counts=counts)
    assert held == Attempts(3, "it broke", ago(0), None, "f")
    held = after_failure(held, "it broke", "f", INTERVAL, NOW, counts=True)
    assert held.retry_at == ago(-600)
