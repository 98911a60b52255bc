"""Counts of a sweep, which add up over pages, segments, orchestrations and hosts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from reconciler.domain.outcomes import Outcome
from reconciler.stores.dynamodb import Consumed

_BY_OUTCOME = {
    Outcome.RELEASED: "released",
    Outcome.ADOPTED: "adopted",
    Outcome.REFUSED: "refused",
    Outcome.REINVOKED: "reinvoked",
    Outcome.FAILED: "errors",
}
_BY_VERB = {
    "advance": "advanced",
    "skip": "skipped",
    "reset claim": "claims_reset",
    "reinvoke": "reinvoked",
    "nudge": "nudged",
}
"""The field that each verb counts in if its outcome is ``done``."""


def counted_as(verb: str, outcome: Outcome) -> str | None:
    """Return the field of ``Counts`` that an outcome is counted in, if any."""
    return _BY_VERB.get(verb) if outcome is Outcome.DONE else _BY_OUTCOME.get(outcome)


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of a sweep, or of a part of one.

    ``stuck``: code → number of stuck entries. ``oldest_stuck_seconds``: code → age of the oldest.
    ``planned``: field name → number of repairs that report mode would have made.
    """

    rows_scanned: int = 0
    orchestrations_scanned: int = 0
    orchestrations_evaluated: int = 0
    released: int = 0
    adopted: int = 0
    advanced: int = 0
    skipped: int = 0
    claims_reset: int = 0
    refused: int = 0
    reinvoked: int = 0
    nudged: int = 0
    errors: int = 0
    stuck: Mapping[str, int] = field(default_factory=dict)
    oldest_stuck_seconds: Mapping[str, float] = field(default_factory=dict)
    planned: Mapping[str, int] = field(default_factory=dict)
    read_units: float = 0.0
    write_units: float = 0.0
    requests: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Add all counts; keep the greater of two ages."""
        stuck = _sum(self.stuck, other.stuck)
        oldest = dict(self.oldest_stuck_seconds)
        for code, seconds in other.oldest_stuck_seconds.items():
            oldest[code] = max(oldest.get(code, 0.0), seconds)
        sums = {name: getattr(self, name) + getattr(other, name) for name in _FLAT}
        return Counts(
            **sums,
            stuck=stuck,
            oldest_stuck_seconds=oldest,
            planned=_sum(self.planned, other.planned),
        )

    def with_consumed(self, consumed: Consumed) -> Counts:
        """Return these counts plus the capacity consumed."""
        return self + Counts(
            read_units=consumed.read_units,
            write_units=consumed.write_units,
            requests=consumed.requests,
        )

    @property
    def repairs(self) -> int:
        """The number of repairs made."""
        return sum(getattr(self, name) for name in REPAIRS)

    def flatten(self) -> dict[str, float]:
        """Return the numbers that can be summed one by one: all except the stuck ones."""
        flat = {name: value for name in _FLAT if (value := getattr(self, name))}
        return flat | {f"{_PLANNED}{name}": count for name, count in self.planned.items()}

    @classmethod
    def from_flat(cls, numbers: Mapping[str, float]) -> Self:
        """Build counts from sums of flattened ones; unknown names are ignored."""
        units = {name: numbers[name] for name in _UNITS if name in numbers}
        counts = {name: int(numbers[name]) for name in (*INTEGERS, "requests") if name in numbers}
        planned = {
            name.removeprefix(_PLANNED): int(count)
            for name, count in numbers.items()
            if name.startswith(_PLANNED)
        }
        return cls(**units, **counts, planned=planned)  # type: ignore[arg-type] # each has its type


_PLANNED = "planned:"
_UNITS = ("read_units", "write_units")
# Annotations are strings here (``from __future__ import annotations``).
_FLAT = tuple(each.name for each in fields(Counts) if each.type in {"int", "float"})

INTEGERS = tuple(name for name in _FLAT if name not in {*_UNITS, "requests"})
"""The integer fields of a sweep's summary, in its order."""

REPAIRS = INTEGERS[3:-1]
"""The integer fields that count repairs."""


def _sum(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}
