"""Enter a bug into the list, and put it into the real code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug: its name, a description, and the function that puts it in."""

    name: str
    says: str
    seed: Callable[[], None]


BUGS: dict[str, Bug] = {}


def bug(says: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Enter a bug into the list under its function's name."""

    def enter(seed: Callable[[], None]) -> Callable[[], None]:
        name = seed.__name__.replace("_", "-")
        BUGS[name] = Bug(name, says, seed)
        return seed

    return enter


def put(owner: Any, name: str, value: Any) -> None:
    """Replace an attribute, which must exist."""
    assert hasattr(owner, name), f"there is no {name} any more"
    setattr(owner, name, value)


def without(owner: Any, method: str, *attributes: str, always: bool = True) -> None:
    """Make a write leave out its conditions on ``attributes``, but keep its SET clauses.

    ``always`` False: it has them on some rows only.
    """
    original = getattr(owner, method)

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        action = original(self, *args, **kwargs)
        part = next(iter(action.values()))
        parts = part["ConditionExpression"].split(" AND ")
        kept = [p for p in parts if not any(f"#{name}" in p for name in attributes)]
        assert len(kept) < len(parts) or not always, "there is no such condition any more"
        _reassemble(part, kept)
        return action

    setattr(owner, method, wrapped)


def _reassemble(part: dict[str, Any], kept: list[str]) -> None:
    part["ConditionExpression"] = " AND ".join(kept)
    if not kept:
        del part["ConditionExpression"]
    text = part.get("ConditionExpression", "") + part.get("UpdateExpression", "")
    for field in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
        used = {k: v for k, v in part.get(field, {}).items() if _named(k, text)}
        part.pop(field, None)
        if used:
            part[field] = used


def _named(placeholder: str, text: str) -> bool:
    tail = text.split(placeholder)[1:]
    return any(not rest[:1].isalnum() and rest[:1] != "_" for rest in tail)
