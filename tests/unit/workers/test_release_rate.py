"""The window that the release rate is counted in."""

from __future__ import annotations

import pytest

from workers.release_rate import _window


@pytest.mark.parametrize(
    ("per_minute", "releases", "seconds"),
    [
        (1, 1, 60),
        (5, 1, 12),
        (30, 1, 2),
        (40, 2, 3),
        (60, 1, 1),
        (90, 3, 2),
        (100, 5, 3),
        (600, 10, 1),
    ],
)
def test_a_window_is_as_short_as_possible(per_minute: int, releases: int, seconds: int) -> None:
    window = _window(per_minute)
    assert (window.amount, window.multiples) == (releases, seconds)


@pytest.mark.parametrize("per_minute", [*range(1, 200), 599, 6_001, 1_000_000])
def test_a_window_stays_close_below_the_rate(per_minute: int) -> None:
    window = _window(per_minute)
    let_through = window.amount * 60 / window.multiples
    assert 2 / 3 * per_minute < let_through <= per_minute
