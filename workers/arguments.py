"""Parses the arguments of messages, which may be anything."""

from __future__ import annotations

from reconciler.sweeping.segments import Scope, Segment
from reconciler.sweeping.sender import SegmentTask
from workers.running import MalformedMessageError, checked_child

MAX_SEGMENTS = 1_000_000
"""DynamoDB's limit for a scan."""


def segment_task_from(place: object, sweep_id: object, since: object) -> SegmentTask | None:
    """Return the segment that a message names; None if it is malformed.

    Unknown fields, which a newer version may send, are ignored.
    """
    if not isinstance(place, dict) or not isinstance(sweep_id, str):
        return None
    number, total, step = (place.get(name) for name in ("number", "total", "step"))
    # Not isinstance, because a bool is an int too.
    if not (type(number) is type(total) is type(step) is int) or type(since) is not float:
        return None
    if place.get("scope") not in list(Scope) or not 0 <= number < total <= MAX_SEGMENTS or step < 0:
        return None
    return SegmentTask(Segment(Scope(place["scope"]), number, total), sweep_id, since, step)


def predecessors(depends_on: object) -> tuple[str, ...] | None:
    """Return the sub-issue ids that a message names as predecessors; None if it names none.

    Raises:
        MalformedMessageError: it is not a list of ids.
    """
    if depends_on is None:
        return None
    if not isinstance(depends_on, list):
        raise MalformedMessageError(
            f"depends_on must be a list of sub-issue ids, not {depends_on!r:.80}"
        )
    return tuple(map(checked_child, depends_on))


def start_from(since: object) -> float | None:
    """Return the start of the sweep that a message is for; None if it names none.

    Raises:
        MalformedMessageError: it is not a number.
    """
    # Not isinstance, because a bool is an int too.
    if since is not None and type(since) is not float and type(since) is not int:
        raise MalformedMessageError(f"since must be a number, not {since!r:.80}")
    return since
