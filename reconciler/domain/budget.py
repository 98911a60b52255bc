"""The budget per user: who may be released when fewer slots are free than children are due."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Budget:
    """Free slots of one user, and those who wait for them elsewhere.

    ``room`` is cap - active - on their way, never below 0. ``ahead`` holds, for every child of
    another orchestration of this user that waits, since when it is due. ``problem`` says why the
    budget could not be read: then nothing is left. ``taken`` says in words who has the slots.
    """

    room: int
    ahead: tuple[datetime, ...] = ()
    problem: str | None = None
    taken: str = ""

    def refusal(self, since: datetime) -> str:
        """Say why a child that is due since ``since`` has no slot yet."""
        if self.problem is not None:
            return f"it is due, and its user's slots cannot be read ({self.problem})"
        parts = [f"it is due, and its user has no free slot{self.taken and ': '}{self.taken}"]
        older = sum(1 for other in self.ahead if other < since)
        if older:
            parts.append(f"{older} in other orchestrations have been due for longer")
        return "; ".join(parts)


def grant(
    budget: Budget | None, due: Mapping[str, datetime], last: Container[str] = ()
) -> tuple[str, ...]:
    """Return which of ``due`` (key → due since) may go now, oldest due first.

    Those in ``last`` come behind the others: their last try failed, and the next one may as well.

    None as budget means that there is none to keep. A child that has been due for longer goes
    first, wherever it belongs, so that a young orchestration never starves an old one.
    """
    ours: Iterable[str] = sorted(due, key=lambda key: (key in last, due[key], key))
    if budget is None:
        return tuple(ours)
    granted: list[str] = []
    for key in ours:
        # A slot is left for each that has waited longer elsewhere: its own evaluation takes it.
        older = sum(1 for since in budget.ahead if since < due[key])
        if older + len(granted) >= budget.room:
            # Whoever comes behind has waited for less.
            break
        granted.append(key)
    return tuple(granted)
