"""Messages that somebody put on the broker by hand: fully understood, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import UsageError
from tests.unit.hostile.values import texts
from workers.arguments import predecessors, segment_task_from, start_from
from workers.messages import BROADCAST, REPLY, TASK, MessageRefusedError, describe
from workers.running import checked, checked_child, checked_sweep

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
SOUND = {"scope": "table", "number": 0, "total": 4, "step": 2}


def _outcome(check: Callable[[], Any]) -> tuple[Any, str]:
    """Return the value from a check, or the text of its refusal."""
    try:
        return check(), ""
    except UsageError as error:
        return None, str(error)


@given(JSON)
def test_random_json_is_no_segment(value: Any) -> None:
    assert segment_task_from(value, "sweep:1", 1.5) is None


@given(st.sampled_from(sorted(SOUND)), JSON)
def test_one_odd_part_yields_no_invalid_segment(name: str, value: Any) -> None:
    task = segment_task_from({**SOUND, name: value}, "sweep:1", 1.5)
    assert task is None or 0 <= task.segment.number < task.segment.total


@pytest.mark.parametrize(
    "odd",
    [
        {"scope": "rows"},
        {"scope": ["table"]},
        {"number": 4},
        {"number": -1},
        {"number": True},
        {"total": 0},
        {"total": 10**7},
        {"step": -1},
        {"step": 1.0},
    ],
)
def test_an_invalid_part_makes_no_segment(odd: dict[str, Any]) -> None:
    assert segment_task_from(SOUND, "sweep:1", 1.5) is not None
    assert segment_task_from({**SOUND, "of a newer version": 1}, "sweep:1", 1.5) is not None
    assert segment_task_from({**SOUND, **odd}, "sweep:1", 1.5) is None
    assert segment_task_from(SOUND, None, 1.5) is None
    assert segment_task_from(SOUND, "sweep:1", "1.5") is None


@given(JSON)
def test_an_id_is_valid_or_briefly_refused(value: Any) -> None:
    """A valid id has 1 to 2,048 bytes, and one of a child at most 1,024, as in the table."""
    for most, check in (
        (2048, lambda: checked("orchestration_id", value)),
        (2048, lambda: checked_sweep(value)),
        (1024, lambda: checked_child(value)),
    ):
        found, said = _outcome(check)
        assert len(said) < 500
        assert said or found is None or 0 < len(found.encode()) <= most


@pytest.mark.parametrize("text", ["", "é" * 513])
def test_what_no_key_can_be_is_refused(text: str) -> None:
    """DynamoDB would reject it, and that would be held against the child."""
    assert _outcome(lambda: checked_child(text))[1]
    assert _outcome(lambda: predecessors(["a", text]))[1]
    assert _outcome(lambda: checked("orchestration_id", text * 2))[1]


@given(JSON)
def test_predecessors_are_strings_none_or_briefly_refused(value: Any) -> None:
    found, said = _outcome(lambda: predecessors(value))
    assert len(said) < 500
    assert said or found is None or all(isinstance(key, str) for key in found)


@given(JSON)
def test_a_start_is_a_number_none_or_refused(value: Any) -> None:
    found, said = _outcome(lambda: start_from(value))
    assert len(said) < 500
    assert said or found is value
    assert bool(said) is (value is not None and type(value) not in {int, float})


# -- envelopes: the schema refuses them without quoting them


def _envelope(**changes: Any) -> bytes:
    """Return a valid message with ``changes`` to its headers, its body or its other fields."""
    headers = {"task": "reconciler.sweep", "id": "sweep:1", "reconciler_message": 1, "lang": "py"}
    whole: dict[str, Any] = {
        "body": "[[], {}, {}]",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": {"delivery_tag": "t", "delivery_info": {"routing_key": "unacked"}},
    }
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    fields = {name: value for name, value in named.items() if name in whole}
    more = {name: value for name, value in changes.items() if name.replace("_", "-") not in fields}
    return json.dumps({**whole, **fields, "headers": {**headers, **more}}).encode()


def test_celery_gets_only_what_the_schema_names() -> None:
    message = TASK.read(_envelope(delivery_info="x", priority=9, timelimit=[1, 1]), "sweep")
    assert message["headers"] == {
        "task": "reconciler.sweep", "id": "sweep:1", "retries": 0, "reconciler_message": 1
    }  # fmt: skip
    assert message["properties"]["delivery_info"] == {"exchange": "", "routing_key": "sweep"}


@pytest.mark.parametrize(
    "odd",
    [
        {"eta": ""},
        {"eta": "2099-01-01T00:00:00Z"},
        {"expires": "2026-01-01T00:00:00Z"},
        {"retries": -1},
        {"retries": 4},
        {"retries": True},
        {"id": ""},
        {"id": []},
        {"task": None},
        {"group": "g"},
        {"chord": {"task": "reconciler.sweep"}},
        {"callbacks": [{}]},
        {"compression": "zlib"},
        {"shadow": "x"},
        {"content_encoding": []},
        {"content_type": "application/x-python-serialize"},
        {"properties": {"delivery_tag": 1}},
        {"properties": {"delivery_tag": "t", "priority": "high"}},
        {"body": "[[], {}, " + '{"chord": {"task": "secret"}}]'},
        {"body": '[[], {}, {"errbacks": ["secret"]}]'},
        {"body": '["secret", {}, {}]'},
        {"body": "[" * 100_000},
        {"body": "secret" * 200_000},
    ],
)
def test_an_odd_message_is_refused_without_being_quoted(odd: dict[str, Any]) -> None:
    with pytest.raises(MessageRefusedError) as refused:
        TASK.read(_envelope(**odd), "sweep")
    assert len(str(refused.value)) <= 200
    assert "secret" not in str(refused.value)


@given(st.one_of(st.binary(max_size=50), JSON.map(lambda value: json.dumps(value).encode())))
def test_anything_but_an_envelope_is_refused(raw: bytes) -> None:
    """Each value of its description is short."""
    for kind in (TASK, BROADCAST, REPLY):
        with pytest.raises(MessageRefusedError):
            kind.read(raw, "sweep")
    assert all(len(value) <= 255 for value in describe(raw).values())
