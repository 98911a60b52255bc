"""No sweep and no watermark claims more than was looked at."""

from __future__ import annotations

import pytest

from reconciler.sweeping.records import MemoryRecords
from reconciler.sweeping.state import SweepState
from tests.support.schedules import Schedule


class Ticking:
    """A clock that advances with every call, and now and then by a lease or more."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        self.seconds += 10.0 if self.looks % 97 == 0 else 0.01
        return self.seconds


@pytest.mark.parametrize("block", range(20))
def test_sweeps_and_watermarks_never_claim_too_much(block: int) -> None:
    covered = completed = 0
    for seed in range(block * 10, block * 10 + 10):
        records = MemoryRecords(Ticking())
        schedule = Schedule(SweepState(records), seed, lambda records=records: records.load("{}"))  # type: ignore[misc]
        for _ in range(250):
            schedule.step()
            schedule.check()
        covered += schedule.covered
        completed += schedule.completed
    assert covered > 100, "schedules that never advance coverage prove nothing"
    assert completed
