"""Records: small JSON objects by kind and name, each updated in one atomic step.

Sweeps share all their state through this port. ``MemoryRecords`` serves one process (cron, Lambda,
a person's shell); ``workers.broker_records`` keeps the same records in the broker. The rules stand
in ``reconciler.sweeping.state``, once for both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

Record = dict[str, Any]
Change = Callable[[Record | None, float], Record | None]
"""Given a record (None: there is none) and the time, returns what is to replace it."""


T = TypeVar("T")


def read_as(kind: type[T], record: object) -> T | None:
    """Read a record as a dataclass or a typed dict; None where it has another form.

    Such a record counts as absent, so that it is written over: another version's, or somebody
    else's, must not end every sweep from then on. Fields that only another version knows are
    ignored.
    """
    reader: TypeAdapter[T] | None = _READERS.get(kind)
    if reader is None:
        reader = _READERS[kind] = TypeAdapter(kind)
    try:
        return reader.validate_python(record)
    except ValidationError:
        return None


_READERS: dict[Any, TypeAdapter[Any]] = {}
"""Making one takes long."""


class Records(Protocol):
    """Where the state of sweeps is kept. Every time comes from one clock: that of the store."""

    def now(self) -> float:
        """Return the store's time in epoch seconds."""

    def read(self, *kinds: str) -> list[dict[str, Record]]:
        """Return all records of these kinds by name, as they were at one moment."""

    def get(self, kind: str, name: str) -> Record | None:
        """Return one record, None where there is none."""

    def update(self, kind: str, name: str, change: Change) -> Record | None:
        """Replace a record atomically and return the new one.

        ``change`` may be called several times, if others change the record meanwhile. It must not
        modify what it is given; None deletes the record.
        """

    def drop(self, kind: str, names: Iterable[str] | None = None) -> None:
        """Delete these records, or all of the kind."""

    def add(self, kind: str, amounts: Mapping[str, float]) -> None:
        """Add to numbers by name."""

    def numbers(self, kind: str) -> dict[str, float]:
        """Return what has been added up by name."""


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
        """Return what has been added up by name."""
        with self._lock:
            return dict(self._numbers.get(kind, {}))

    def dump(self, *, only: Iterable[str] = ()) -> str:
        """Return the records as JSON: all, or those of some kinds."""
        with self._lock:
            kinds = set(only) or self._records.keys()
            kept = {kind: held for kind, held in self._records.items() if kind in kinds}
            return json.dumps(kept, separators=(",", ":"))

    def load(self, dumped: str) -> None:
        """Take over what ``dump`` returned.

        Raises:
            ValueError: it is not what ``dump`` returns.
        """
        records = _DUMPED.validate_json(dumped)
        with self._lock:
            self._records = records


_DUMPED = TypeAdapter(dict[str, dict[str, Record]])
