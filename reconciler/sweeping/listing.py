"""The list of what is stuck, waits for a slot or is backed off, filtered and in pages.

``reconciler list``, ``status`` and Flower's tab all use it, so they agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from reconciler.domain.codes import BENIGN
from reconciler.domain.model import timestamp
from reconciler.sweeping.known_stuck import Known

DEFAULT_LIMIT = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """A stuck child, or a stuck orchestration if ``sub_issue_id`` is None.

    ``age_seconds``: how long it has been stuck; None if unknown, which counts as oldest.
    ``needs_action``: the reconciler cannot resolve it.
    ``look_at``: when it is evaluated again (epoch seconds), if sweeps skip it until then.
    """

    orchestration_id: str
    sub_issue_id: str | None
    display_id: str | None
    repo: str | None
    user_id: str | None
    code: str
    reason: str
    age_seconds: float | None
    task_id: str | None
    needs_action: bool
    look_at: float | None = None

    @property
    def alarming(self) -> bool:
        """Whether it needs attention: it does more than wait for a free slot of its user."""
        return self.code not in BENIGN

    def to_json(self, now: float) -> dict[str, Any]:
        """Return plain values, as of ``now`` (epoch seconds); times are ISO 8601 UTC."""
        age = self.age_seconds
        return {
            **asdict(self),
            "age_seconds": None if age is None else round(age, 1),
            "since": None if age is None else _iso(now - age),
            "look_at": None if self.look_at is None else _iso(self.look_at),
        }


@dataclass(frozen=True, slots=True)
class Query:
    """Filters and a page; an empty filter accepts everything.

    ``repo`` and ``user_id`` match whole values. ``text`` matches any part of the ids, the repo and
    the user. ``repo`` and ``text`` ignore case. ``offset`` and ``limit`` (None: no limit) choose
    the page.
    """

    codes: frozenset[str] = field(default_factory=frozenset)
    repo: str = ""
    user_id: str = ""
    older_than_seconds: float = 0.0
    needs_action: bool = False
    text: str = ""
    offset: int = 0
    limit: int | None = DEFAULT_LIMIT

    def accepts(self, entry: Entry) -> bool:
        """Whether an entry passes the filters."""
        return self._names(entry) and self._is_old_enough(entry) and self._text_is_in(entry)

    def _names(self, entry: Entry) -> bool:
        return (
            (not self.codes or entry.code in self.codes)
            and (not self.repo or self.repo.casefold() == (entry.repo or "").casefold())
            and (not self.user_id or self.user_id == entry.user_id)
            and (not self.needs_action or entry.needs_action)
        )

    def _is_old_enough(self, entry: Entry) -> bool:
        return entry.age_seconds is None or entry.age_seconds >= self.older_than_seconds

    def _text_is_in(self, entry: Entry) -> bool:
        wanted = self.text.strip().casefold()
        texts = (
            entry.display_id,
            entry.orchestration_id,
            entry.sub_issue_id,
            entry.task_id,
            entry.repo,
            entry.user_id,
        )
        return any(wanted in text.casefold() for text in texts if text)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of entries. ``total``: how many pass the filters; ``remembered``: how many exist."""

    entries: tuple[Entry, ...]
    offset: int
    total: int
    remembered: int

    @property
    def next_offset(self) -> int | None:
        """Where the next page begins; None on the last one."""
        end = self.offset + len(self.entries)
        return end if self.entries and end < self.total else None


def list_entries(known: Mapping[str, Known], now: float) -> list[Entry]:
    """Return all stuck entries, oldest first, as of ``now`` (epoch seconds).

    ``known``: by orchestration id, as in ``Overview.known``.
    """
    entries = [
        Entry(
            **asdict(stuck),
            display_id=left.display_ids.get(stuck.sub_issue_id or ""),
            repo=left.repo,
            user_id=left.user_id,
            look_at=left.evaluate_at if left.evaluate_at > now else None,
        )
        for name, left in known.items()
        for stuck in left.list_stuck(name, now)
    ]
    return sorted(entries, key=_oldest_first)


def select(entries: Iterable[Entry], query: Query) -> Page:
    """Return the page of entries that a query asks for, in the given order."""
    everything = list(entries)
    wanted = [entry for entry in everything if query.accepts(entry)]
    end = None if query.limit is None else query.offset + query.limit
    shown = tuple(wanted[query.offset : end])
    return Page(shown, query.offset, len(wanted), len(everything))


def _oldest_first(entry: Entry) -> tuple[float, str, str]:
    # An unknown age counts as the oldest, so that it cannot be overlooked.
    age = float("inf") if entry.age_seconds is None else entry.age_seconds
    return (-age, entry.orchestration_id, entry.sub_issue_id or "")


def _iso(seconds: float) -> str:
    return timestamp(datetime.fromtimestamp(seconds, UTC))
