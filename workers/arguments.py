"""Arguments of messages: whatever stands on the broker, read into values or refused."""

from __future__ import annotations

from dataclasses import fields

from reconciler.operations.scan import SegmentCursor
from workers.running import MalformedMessageError

MOST_SEGMENTS = 1_000_000
"""As many as DynamoDB lets a scan have."""


def cursor_from(cursor: object) -> SegmentCursor | None:
    """Return the place that a message names; None when it names none.

    What a newer version says of it besides is passed over.
    """
    if not isinstance(cursor, dict):
        return None
    known = {field.name for field in fields(SegmentCursor)}
    try:
        at = SegmentCursor(**{name: value for name, value in cursor.items() if name in known})
    except TypeError:
        return None
    numbers = (at.segment, at.total, at.step)
    # A bool is an int, and no number of a segment.
    sound = all(type(number) is int and number >= 0 for number in numbers)
    if not sound or not at.segment < at.total <= MOST_SEGMENTS:
        return None
    return at if isinstance(at.sweep_id, str) and _is_key(at.start_key) else None


def _is_key(key: object) -> bool:
    """Whether this is where a scan can go on: the key of a row, or none for the beginning."""
    if key is None:
        return True
    return (
        isinstance(key, dict)
        and key.keys() == {"orchestration_id", "sub_issue_id"}
        and all(isinstance(part, str) and part for part in key.values())
    )


def predecessors(depends_on: object) -> tuple[str, ...] | None:
    """Return the sub-issue ids that a message names as predecessors; None when it names none.

    Raises:
        MalformedMessageError: they are no list of ids.
    """
    if depends_on is None:
        return None
    if not isinstance(depends_on, list) or not all(isinstance(key, str) for key in depends_on):
        raise MalformedMessageError(
            f"depends_on must be a list of sub-issue ids, not {depends_on!r:.80}"
        )
    return tuple(depends_on)
