"""The budget per user: whom to release if there are fewer free slots than due children."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Budget:
    """A user's free slots, and the children in other orchestrations that wait for them.

    ``room``: cap - active - on their way to admission, never below 0. ``ahead``: since when each of
    those children is due. ``problem``: why the budget could not be read; then there is no room.
    ``taken``: what takes up the slots, as text.
    """

    room: int
    ahead: tuple[datetime, ...] = ()
    problem: str | None = None
    taken: str = ""

    def refusal(self, since: datetime, granted: int = 0) -> str:
        """Return why a child that is due since ``since`` has no slot yet.

        ``granted``: how many children of its orchestration get the slots that are free.
        """
        if self.problem is not None:
            return f"it is due, and its user's slots cannot be read ({self.problem})"
        parts = [f"it is due, and its user has no free slot{self.taken and ': '}{self.taken}"]
        if granted:
            parts.append(f"ahead of it in this orchestration: {granted}")
        older = sum(1 for other in self.ahead if other < since)
        if older:
            have = "has" if older == 1 else "have"
            parts.append(f"{older} in other orchestrations {have} been due for longer")
        return "; ".join(parts)


def grant(
    budget: Budget | None, due: Mapping[str, datetime], last: Container[str] = ()
) -> tuple[str, ...]:
    """Return which of ``due`` (key → due since) may go now, oldest first.

    Those in ``last`` come after the others, because their last try failed. Without a budget, all
    may go. Older children of other orchestrations take precedence, so that a young orchestration
    never starves an old one.
    """
    ours: Iterable[str] = sorted(due, key=lambda key: (key in last, due[key], key))
    if budget is None:
        return tuple(ours)
    granted: list[str] = []
    for key in ours:
        # Leave a slot for each older child elsewhere; its own evaluation will take it.
        older = sum(1 for since in budget.ahead if since < due[key])
        if older + len(granted) >= budget.room:
            break
        granted.append(key)
    return tuple(granted)
