"""The recorded cost of the platform's own sweep, which cannot be run here.

DynamoDB Local, 8,000 orchestrations of 5 children (48,000 rows, 45 MB; 70 % finished, 20 % in
flight, 10 % stranded), two cores, nothing else running, medians of 3. To compare seconds with
another machine, the record has the floor of that machine: a scan of whole items in 4 segments.
"""

from __future__ import annotations

from dataclasses import dataclass

ORCHESTRATIONS, CHILDREN = 8_000, 5
FLOOR_SCAN_CPU_SECONDS = 6.2
FLOOR_SCAN_WALL_SECONDS = 7.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """One sweep of the platform."""

    requests: int
    read_units: float
    write_units: float | None
    cpu_seconds: float
    wall_seconds: float


OUTAGE = Recorded(22_443, 17_698, 26_800, 24.5, 69.0)
STEADY = Recorded(15_244, 18_326, None, 16.3, 36.0)
