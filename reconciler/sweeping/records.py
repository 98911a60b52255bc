"""Records: small JSON objects by kind and name, each updated in one atomic step.

Sweeps share all their state through this port. ``MemoryRecords`` serves a single process (cron,
Lambda, a shell); ``workers.broker_records`` keeps the same records in the broker. The rules for
both are in ``reconciler.sweeping.state``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

Record = dict[str, Any]
Change = Callable[[Record | None, float], Record | None]
"""Gets a record (None: there is none) and the time, and returns the new record."""


T = TypeVar("T")


def read_as(kind: type[T], record: object) -> T | None:
    """Read a record as a dataclass or a typed dict; None if it has another form.

    Such a record counts as absent and gets overwritten: a record of another version must not make
    every later sweep fail. Unknown fields are ignored.
    """
    reader: TypeAdapter[T] | None = _READERS.get(kind)
    if reader is None:
        reader = _READERS[kind] = TypeAdapter(kind)
    try:
        return reader.validate_python(record)
    except ValidationError:
        return None


_READERS: dict[Any, TypeAdapter[Any]] = {}
"""A cache, because creating one is slow."""


class Records(Protocol):
    """A store for the state of sweeps. All times come from the store's clock."""

    def now(self) -> float:
        """Return the store's time in epoch seconds."""

    def read(self, *kinds: str) -> list[dict[str, Record]]:
        """Return all records of each kind, by name, from one consistent snapshot."""

    def get(self, kind: str, name: str) -> Record | None:
        """Return one record; None if there is none."""

    def update(self, kind: str, name: str, change: Change) -> Record | None:
        """Replace a record atomically and return the new one.

        ``change`` may be called several times if others change the record meanwhile. It must not
        modify its argument. If it returns None, the record is deleted.
        """

    def drop(self, kind: str, names: Iterable[str] | None = None) -> None:
        """Delete these records, or all of the kind."""

    def add(self, kind: str, amounts: Mapping[str, float]) -> None:
        """Add to numbers by name."""

    def numbers(self, kind: str) -> dict[str, float]:
        """Return the sums by name."""


class MemoryRecords:
    """Records of one process; ``dump`` and ``load`` carry them from one run to the next."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._lock = Lock()
        self._records: dict[str, dict[str, Record]] = {}
        self._numbers: dict[str, dict[str, float]] = {}

    def read(self, *kinds: str) -> list[dict[str, Record]]:
        """Return all records of these kinds by name."""
        with self._lock:
            return [dict(self._records.get(kind, {})) for kind in kinds]

    def get(self, kind: str, name: str) -> Record | None:
        """Return one record."""
        with self._lock:
            return self._records.get(kind, {}).get(name)

    def update(self, kind: str, name: str, change: Change) -> Record | None:
        """Replace a record and return the new one."""
        with self._lock:
            records = self._records.setdefault(kind, {})
            changed = change(records.get(name), self.now())
            if changed is None:
                records.pop(name, None)
            else:
                records[name] = changed
            return changed

    def drop(self, kind: str, names: Iterable[str] | None = None) -> None:
        """Delete these records, or all of the kind."""
        with self._lock:
            if names is None:
                self._records.pop(kind, None)
                self._numbers.pop(kind, None)
                return
            for name in names:
                self._records.get(kind, {}).pop(name, None)

    def add(self, kind: str, amounts: Mapping[str, float]) -> None:
        """Add to numbers by name."""
        with self._lock:
            numbers = self._numbers.setdefault(kind, {})
            for name, amount in amounts.items():
                numbers[name] = numbers.get(name, 0.0) + amount

    def numbers(self, kind: str) -> dict[str, float]:
        """Return the sums by name."""
        with self._lock:
            return dict(self._numbers.get(kind, {}))

    def dump(self, *, only: Iterable[str] = ()) -> str:
        """Return the records as JSON: all, or those of the given kinds."""
        with self._lock:
            kinds = set(only) or self._records.keys()
            kept = {kind: held for kind, held in self._records.items() if kind in kinds}
            return json.dumps(kept, separators=(",", ":"))

    def load(self, dumped: str) -> None:
        """Replace all records with those that ``dump`` returned.

        Raises:
            ValueError: ``dumped`` is not valid.
        """
        records = _DUMPED.validate_json(dumped)
        with self._lock:
            self._records = records


_DUMPED = TypeAdapter(dict[str, dict[str, Record]])
