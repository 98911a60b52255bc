"""Pacing of pages: the ceiling is kept, and reads give way to a throttled table."""

from __future__ import annotations

import random

import pytest

from reconciler.stores.read_pacing import PAGE_UNITS, LocalAllowance, PagePacer
from tests.support.pacing import SleepingClock, pause_of, turn


def never() -> bool:
    return False


def pacer(clock: SleepingClock, ceiling: float | None = None, **more: LocalAllowance) -> PagePacer:
    return PagePacer(ceiling, sleep=clock.sleep, monotonic=clock, **more)


class Table:
    """A table with so many units per second to spare; it throttles pages beyond that."""

    def __init__(self, clock: SleepingClock, units_per_second: float) -> None:
        self._clock = clock
        self._rate = units_per_second
        self._left = 0.0
        self._at = clock()
        self.pages = self.refusals = 0

    def read(self, pace: PagePacer) -> None:
        leave = turn(pace)
        now = self._clock()
        self._left = min(2 * self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left <= 0:
            self.refusals += 1
            pace.throttled(leave)
        else:
            self._left -= PAGE_UNITS
            self.pages += 1
            pace.read(leave, PAGE_UNITS, 1000)


def test_without_a_ceiling_pages_do_not_wait() -> None:
    clock = SleepingClock()
    pace = pacer(clock)
    for _ in range(100):
        leave = turn(pace)
        assert leave.limit is None
        pace.read(leave, PAGE_UNITS, 1000)
    assert clock.now == 100.0


def test_a_page_is_estimated_as_one_megabyte() -> None:
    """In pieces of 4 KB, at half the price of a strongly consistent read."""
    assert turn(pacer(SleepingClock())).units == 1024 / 4 / 2


@pytest.mark.parametrize("ceiling", [1000.0, 400.0, 130.0, 60.0, 5.0])
def test_a_ceiling_is_kept_and_used(ceiling: float) -> None:
    clock = SleepingClock()
    pace = pacer(clock, ceiling)
    dice = random.Random(1)  # noqa: S311 - sizes of pages
    consumed = 0.0
    for _ in range(200):
        leave = turn(pace)
        # A page is as large as its limit, or smaller at the end of a segment.
        units = min(PAGE_UNITS, (leave.limit or 1000) / 8) * dice.uniform(0.5, 1.0)
        pace.read(leave, units, max(1, int(units * 8)))
        pace.spend(units / 10)
        consumed += units * 1.1
    took = clock.now - 100.0
    # One page may always have been read ahead of its time.
    assert consumed / ceiling - PAGE_UNITS * 1.1 / ceiling <= took <= consumed / ceiling


@pytest.mark.parametrize(
    ("ceiling", "limit"), [(200.0, None), (128.0, None), (60.0, 240), (5.0, 20), (0.5, 2), (0.1, 1)]
)
def test_a_low_ceiling_cuts_pages(ceiling: float, limit: int | None) -> None:
    """That is a ceiling below the cost of one page per second."""
    pace = pacer(SleepingClock(), ceiling)
    # Rows of 2 KB: four of them make a unit.
    pace.read(turn(pace), 10.0, 40)
    assert turn(pace).limit == limit


def test_rows_are_first_estimated_at_one_kilobyte() -> None:
    assert turn(pacer(SleepingClock(), 10.0)).limit == 80


@pytest.mark.parametrize(("units", "rows"), [(10.0, 0), (0.0, 10), (0.0, 0)])
def test_an_empty_page_keeps_the_estimate(units: float, rows: int) -> None:
    """A page without rows or without a cost tells nothing about the size of rows."""
    pace = pacer(SleepingClock(), 10.0)
    pace.read(turn(pace), 10.0, 40)
    pace.read(turn(pace), units, rows)
    assert turn(pace).limit == 40


def test_a_page_is_charged_before_and_corrected_after() -> None:
    """A shared allowance is not asked for a difference of zero."""
    taken: list[float] = []

    class Shared(LocalAllowance):
        def take(self, units: float) -> float:
            taken.append(units)
            return super().take(units)

    clock = SleepingClock()
    pace = pacer(clock, 256.0, allowance=Shared(256.0, clock))
    pace.read(turn(pace), PAGE_UNITS, 1000)
    pace.read(turn(pace), 100.0, 1000)
    pace.spend(0.0)
    pace.spend(1.5)
    pace.throttled(turn(pace))
    assert taken == [128.0, 128.0, -28.0, 1.5, 128.0, -128.0]


def test_threads_share_one_ceiling() -> None:
    clock = SleepingClock()
    shared = LocalAllowance(256.0, clock)
    paces = [pacer(clock, 256.0, allowance=shared) for _ in range(4)]
    for number in range(40):
        pace = paces[number % 4]
        pace.read(turn(pace), PAGE_UNITS, 1000)
    assert clock.now - 100.0 == pytest.approx(39 * PAGE_UNITS / 256.0)


def test_an_abandoned_wait_returns_its_units() -> None:
    """The wait ends as soon as the time is up."""
    clock = SleepingClock()
    pace = pacer(clock, 1.0)
    pace.read(turn(pace), 60.0, 100)
    ends = clock.now + 20
    assert pace.wait(lambda: clock.now >= ends) is None
    assert clock.now == ends
    # The next page waits only for what was consumed.
    turn(pace)
    assert clock.now == pytest.approx(160.0)


def test_steps_shorter_than_the_pause_still_read() -> None:
    """A step that gives up leaves its turn to the next one."""
    clock = SleepingClock()
    pace = pacer(clock)
    for _ in range(5):
        pace.throttled(turn(pace))
    refused_at, steps = clock.now, 0
    while True:
        steps += 1
        ends_at = clock.now + 5.0
        if pace.wait(lambda ends_at=ends_at: clock.now >= ends_at) is not None:  # type: ignore[misc]
            break
        assert steps < 10, "no step ever gets to read"
    assert (steps, clock.now - refused_at) == (2, 8.0)


def test_a_returned_turn_shortens_no_later_pause() -> None:
    clock = SleepingClock()
    pace = pacer(clock)
    pace.throttled(turn(pace))
    under_way = turn(pace)

    def refused_meanwhile() -> bool:
        pace.throttled(under_way)
        return True

    assert pace.wait(refused_meanwhile) is None
    refused_at = clock.now
    turn(pace)
    assert clock.now - refused_at == 1.0


def test_a_wait_checks_its_time_every_second() -> None:
    clock = SleepingClock()
    pace = pacer(clock, 1.0)
    pace.spend(2.5)
    looked: list[float] = []

    def out_of_time() -> bool:
        looked.append(clock.now)
        return False

    assert pace.wait(out_of_time) is not None
    assert looked == [100.0, 101.0, 102.0]
    assert clock.now == 102.5


def test_the_pause_doubles_quickly_and_shrinks_slowly() -> None:
    clock = SleepingClock()
    pace = pacer(clock)
    pauses = []
    for _ in range(6):
        pace.throttled(turn(pace))
        pauses.append(pause_of(pace))
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    pace.read(turn(pace), PAGE_UNITS, 1000)
    assert pause_of(pace) == pytest.approx(7.2)
    for _ in range(100):
        pace.read(turn(pace), PAGE_UNITS, 1000)
    assert pause_of(pace) == 0.0


def test_a_retried_page_counts_as_throttled() -> None:
    pace = pacer(SleepingClock())
    pace.read(turn(pace), PAGE_UNITS, 1000, strained=True)
    assert pause_of(pace) == 0.5


def test_simultaneous_refusals_count_as_one() -> None:
    clock = SleepingClock()
    pace = pacer(clock)
    leaves = [turn(pace) for _ in range(4)]
    clock.sleep(0.1)
    for leave in leaves:
        pace.throttled(leave)
    assert pause_of(pace) == 0.5


@pytest.mark.parametrize("left", [40.0, 100.0, 400.0])
def test_a_scan_adapts_to_the_remaining_capacity(left: float) -> None:
    clock = SleepingClock()
    table = Table(clock, left)
    pace = pacer(clock)
    while table.pages < 200:
        table.read(pace)
    took = clock.now - 100.0
    # It uses most of the capacity, and few of its requests are throttled.
    assert table.pages * PAGE_UNITS / took > 0.5 * left
    assert table.refusals < 0.25 * table.pages
