"""What a sweep reads: the whole table, or by an index only what is still active.

An index on ``child_status`` shows every child that is not finished, and none of what is history. A
sweep that goes by it costs what is active and not what the table holds. Some things it cannot see:
an orchestration all of whose children are finished and whose parent is not settled, rows that are
missing, rows whose status is none of the platform's. So a full scan is made now and then, and what
was stuck when a sweep last ended is looked at by each sweep until it no longer is. By the latter a
sweep of either kind can say what is stuck: as far as anybody has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from reconciler.settings import Settings


class Coverage(StrEnum):
    """How much of the table a sweep looks at."""

    FULL = "full"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier sweeps have left.

    ``full_ended_at``: when the last complete full scan ended, in epoch seconds; None: never.
    ``index_failed_at``: when the last sweep ended, if it went by the index and was not complete.
    ``stuck``: orchestrations in which something was stuck when the last complete sweep ended;
    None where not all of them are known.
    """

    full_ended_at: float | None = None
    stuck: tuple[str, ...] | None = None
    index_failed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a sweep is to look at; ``carried``: orchestrations, whatever the index shows of them."""

    coverage: Coverage = Coverage.FULL
    carried: tuple[str, ...] = ()


EVERYTHING = Scope()


def known_from(
    last: Mapping[str, Any] | None,
    last_full: Mapping[str, Any] | None,
    last_complete: Mapping[str, Any] | None,
    stuck: Iterable[Mapping[str, Any]],
) -> Known:
    """Gather what is known from stored summaries, and the list of what was stuck after the latter.

    The list holds the oldest only; a summary that counted more of them says that it is not whole.
    """
    entries = list(stuck)
    ended = (last_full or {}).get("ended_at")
    whole = last_complete is not None and sum(last_complete["stuck"].values()) <= len(entries)
    names = tuple(dict.fromkeys(str(entry["orchestration_id"]) for entry in entries))
    failed_at = None
    if last is not None and last.get("coverage") == "active" and not last["complete"]:
        failed_at = float(last["ended_at"])
    full_ended_at = float(ended) if ended is not None else None
    return Known(full_ended_at, names if whole else None, failed_at)


def choose_scope(
    settings: Settings,
    known: Known,
    now: float,
    *,
    full: bool = False,
    full_scan_since: float | None = None,
) -> Scope:
    """Return what a sweep that begins at ``now`` (epoch seconds) is to look at.

    Everything, unless there is an index, a full scan is not due, and all that was stuck is known.
    A full scan that failed, or was not complete, is due again at once; and one is made in the place
    of the index where a sweep by it was not complete, since the index may be gone, or forbidden.

    ``full_scan_since``: a full scan is at work, since then. What is due is being made, and a sweep
    by the index may begin beside it, unless the index had failed before: that scan takes its place.
    """
    if full or settings.active_index_name is None or known.stuck is None:
        return EVERYTHING
    if full_scan_since is not None:
        in_its_place = known.index_failed_at is not None and known.index_failed_at < full_scan_since
        return EVERYTHING if in_its_place else Scope(Coverage.ACTIVE, known.stuck)
    if known.full_ended_at is None or known.index_failed_at is not None:
        return EVERYTHING
    since = now - known.full_ended_at
    # A time that lies ahead is of a clock that was wrong; it must not put the scan off for ever.
    if not 0 <= since < settings.full_scan_interval_seconds:
        return EVERYTHING
    return Scope(Coverage.ACTIVE, known.stuck)
