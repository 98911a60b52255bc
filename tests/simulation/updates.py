"""DynamoDB's update expressions: ``SET``, ``REMOVE``, ``ADD`` and ``DELETE`` on top-level names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from tests.simulation.expressions import ExpressionError, Item, Operand, Parser, Scope, Value

Clause = Callable[[Scope, dict[str, Value]], None]
"""Changes the new item according to the old item and the values in the scope."""


@dataclass(frozen=True, slots=True)
class Update:
    """A parsed update: its clauses, the tokens of the attributes it writes, its placeholders."""

    clauses: tuple[Clause, ...]
    targets: tuple[str, ...]
    used: frozenset[str]

    def apply(self, scope: Scope) -> dict[str, Value]:
        """Return the item after the update.

        Raises:
            ExpressionError: two clauses write one attribute, or an operand has the wrong type.
        """
        written = [scope.name(token) for token in self.targets]
        if len(set(written)) != len(written):
            msg = "two document paths overlap with each other"
            raise ExpressionError(msg)
        new = dict(scope.item)
        for clause in self.clauses:
            clause(scope, new)
        return new


@lru_cache(maxsize=4096)
def parse_update(text: str) -> Update:
    """Parse an update expression.

    Raises:
        ExpressionError: it is not well formed.
    """
    parser = Parser(text)
    clauses: list[Clause] = []
    targets: list[str] = []
    seen: set[str] = set()
    while parser.peek():
        word = parser.take().upper()
        if word not in _PARTS or word in seen:
            msg = f"syntax error in {text!r}: {word} begins no clause, or begins two"
            raise ExpressionError(msg)
        seen.add(word)
        while True:
            target = parser.path_name(parser.take())
            targets.append(target)
            clauses.append(_PARTS[word](parser, target))
            if parser.peek() != ",":
                break
            parser.take()
    if not clauses:
        msg = "the update expression is empty"
        raise ExpressionError(msg)
    return Update(tuple(clauses), tuple(targets), frozenset(parser.used))


def _set(parser: Parser, target: str) -> Clause:
    parser.take("=")
    left = _set_operand(parser)
    sign = parser.peek()
    if sign not in {"+", "-"}:
        return lambda s, new: _assign(new, s.name(target), left(s))
    parser.take()
    right = _set_operand(parser)

    def calculate(scope: Scope, new: dict[str, Value]) -> None:
        total = _number(left(scope)) + _number(right(scope)) * (1 if sign == "+" else -1)
        new[scope.name(target)] = {"N": format(total.normalize(), "f")}

    return calculate


def _set_operand(parser: Parser) -> Operand:
    if parser.peek() != "if_not_exists":
        return parser.operand()
    parser.take()
    parser.take("(")
    path = parser.operand()
    parser.take(",")
    default = parser.operand()
    parser.take(")")
    return lambda s: found if (found := path(s)) is not None else default(s)


def _assign(new: dict[str, Value], name: str, value: Value | None) -> None:
    if value is None:
        msg = "the provided expression refers to an attribute that does not exist in the item"
        raise ExpressionError(msg)
    new[name] = value


def _number(value: Value | None) -> Decimal:
    if value is None or "N" not in value:
        msg = "an operand in the update expression has an incorrect data type"
        raise ExpressionError(msg)
    return Decimal(value["N"])


def _remove(_parser: Parser, target: str) -> Clause:
    def remove(scope: Scope, new: dict[str, Value]) -> None:
        new.pop(scope.name(target), None)

    return remove


def _sets(old: Value | None, change: Value) -> tuple[str, set[str], set[str]]:
    kind, inner = next(iter(change.items()))
    if kind not in {"SS", "NS", "BS"} or (old is not None and kind not in old):
        msg = "an operand in the update expression has an incorrect data type"
        raise ExpressionError(msg)
    return kind, set(old[kind]) if old is not None else set(), set(inner)


def _add(parser: Parser, target: str) -> Clause:
    operand = parser.operand()

    def add(scope: Scope, new: dict[str, Value]) -> None:
        name, change = scope.name(target), operand(scope)
        if change is not None and "N" in change:
            old = scope.item.get(name)
            total = _number(old if old is not None else {"N": "0"}) + _number(change)
            new[name] = {"N": format(total.normalize(), "f")}
            return
        kind, before, more = _sets(scope.item.get(name), change or {"NULL": True})
        new[name] = {kind: sorted(before | more)}

    return add


def _delete(parser: Parser, target: str) -> Clause:
    operand = parser.operand()

    def delete(scope: Scope, new: dict[str, Value]) -> None:
        name = scope.name(target)
        kind, before, less = _sets(scope.item.get(name), operand(scope) or {"NULL": True})
        left = before - less
        if left:
            new[name] = {kind: sorted(left)}
        else:
            new.pop(name, None)

    return delete


_PARTS = {"SET": _set, "REMOVE": _remove, "ADD": _add, "DELETE": _delete}


def apply_update(text: str, item: Item, scope: Scope) -> dict[str, Value]:
    """Parse an update and apply it to ``item``, the item of ``scope``."""
    update = parse_update(text)
    scope.used |= update.used
    return update.apply(Scope(item, scope.names, scope.values))
