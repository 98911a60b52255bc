"""Records in one process."""

from __future__ import annotations

from reconciler.sweeping.records import MemoryRecords


def test_records_are_dropped_by_name_or_kind() -> None:
    records = MemoryRecords(lambda: 0.0)
    for kind in ("a", "b"):
        for name in ("x", "y"):
            records.update(kind, name, lambda _old, _now: {"n": 1})
        records.add(kind, {"n": 1.0})
    records.drop("a", ["x", "unknown"])
    assert records.read("a", "b") == [{"y": {"n": 1}}, {"x": {"n": 1}, "y": {"n": 1}}]
    records.drop("b")
    assert records.read("a", "b") == [{"y": {"n": 1}}, {}]
    assert (records.numbers("a"), records.numbers("b")) == ({"n": 1.0}, {})
