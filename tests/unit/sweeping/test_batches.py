"""Batched reads: batches are full, consumers are served in order, and no value is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from reconciler.stores.dynamodb import MAX_KEYS_PER_BATCH
from reconciler.sweeping.batches import Batches


class Reader:
    """Reads squares; records which keys were read, who was served, and with which values."""

    def __init__(self, unreadable: frozenset[int] = frozenset()) -> None:
        self._unreadable = unreadable
        self.batches: list[list[int]] = []
        self.served: list[str] = []
        self.served_by_then: list[int] = []
        self.at_hand: list[set[int]] = []
        self.until = Batches(self._read, self._serve)

    def _read(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.batches.append(list(keys))
        self.served_by_then.append(len(self.served))
        return {key: key * key for key in keys if key not in self._unreadable}

    def _serve(self, waiting: tuple[str, Sequence[int]], values: Mapping[int, int]) -> None:
        name, keys = waiting
        for key in keys:
            assert values.get(key) == (None if key in self._unreadable else key * key)
        self.served.append(name)
        self.at_hand.append(set(values))

    def add(self, name: str, keys: Sequence[int]) -> None:
        self.until.add((name, keys), keys)


def test_a_consumer_without_keys_is_served_at_once() -> None:
    reader = Reader()
    reader.add("first", [1])
    reader.add("second", [])
    assert (reader.served, reader.batches) == (["second"], [])


def test_a_full_batch_serves_only_complete_consumers() -> None:
    """It is read as soon as it is full; a consumer with a key in the next batch waits for that."""
    reader = Reader()
    most = MAX_KEYS_PER_BATCH
    reader.add("small", range(most - 1))
    assert reader.batches == []
    reader.add("across", [most - 1, most])
    assert [len(batch) for batch in reader.batches] == [most]
    assert reader.served == ["small"]
    reader.until.finish()
    assert reader.batches[1] == [most]
    assert reader.served == ["small", "across"]


def test_a_full_batch_is_read_at_once() -> None:
    reader = Reader()
    reader.add("all", range(MAX_KEYS_PER_BATCH))
    assert (len(reader.batches), reader.served) == (1, ["all"])


def test_a_complete_consumer_is_served_between_two_batches() -> None:
    """It does not wait for the next batch of the consumer behind it."""
    reader = Reader()
    reader.add("small", range(60))
    reader.add("large", range(60, 260))
    assert reader.served_by_then == [0, 1]


def test_a_large_consumer_waits_for_its_last_batch() -> None:
    """A consumer that came later is served after it."""
    reader = Reader()
    reader.add("large", range(250))
    assert (len(reader.batches), reader.served) == (2, [])
    reader.add("behind", [1000])
    reader.until.finish()
    assert reader.served == ["large", "behind"]


def test_an_unread_key_holds_up_no_consumer() -> None:
    """The values omit a key that could not be read."""
    reader = Reader(frozenset({1, 2}))
    for number in range(4):
        reader.add(str(number), [number])
    reader.until.finish()
    assert reader.served == ["0", "1", "2", "3"]


def test_nothing_is_read_without_consumers() -> None:
    reader = Reader()
    reader.until.finish()
    reader.add("one", [1])
    reader.until.finish()
    reader.until.finish()
    assert reader.batches == [[1]]


@pytest.mark.parametrize("rounds", [1, 3])
def test_served_values_are_not_kept(rounds: int) -> None:
    reader = Reader()
    for number in range(rounds):
        reader.add(f"a{number}", [2 * number])
        reader.add(f"b{number}", [2 * number + 1])
        reader.until.finish()
    assert [len(values) for values in reader.at_hand] == [2, 1] * rounds
