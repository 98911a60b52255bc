"""Parse and evaluate DynamoDB's expressions: the part of the grammar that this project uses.

Conditions: ``AND``, ``OR``, ``NOT``, parentheses, ``= <> < <= > >=``, ``BETWEEN``, ``IN``,
``attribute_exists``, ``attribute_not_exists``, ``begins_with``, ``contains``, ``size``; a path may
lead into a map, as in ``channel_metadata.orchestration_id``.
Updates: ``SET`` (with ``+``, ``-``, ``if_not_exists``), ``REMOVE``, ``ADD``, ``DELETE``.
Anything else in an expression is an error, and so is a missing or unused placeholder, as in the
service.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

Value = Mapping[str, Any]
Item = Mapping[str, Value]

_TOKEN = re.compile(
    r"\s*(?:([#:]?[A-Za-z_][A-Za-z0-9_]*|[#:][A-Za-z0-9_]+)|(<>|<=|>=|[=<>(),.+\-]))"
)
_WORDS = frozenset({"AND", "OR", "NOT", "IN", "BETWEEN", "SET", "REMOVE", "ADD", "DELETE"})
_RESERVED = frozenset(
    {"COUNT", "KEY", "NAME", "NAMES", "SIZE", "STATUS", "TIMESTAMP", "TOKEN", "TTL", "USER"}
)
"""Those of DynamoDB's 573 reserved words that could be the name of an attribute here."""


class ExpressionError(Exception):
    """An expression that DynamoDB would reject with ``ValidationException``."""


@dataclass(slots=True)
class Scope:
    """The context of an expression; ``used`` collects the placeholders that it names."""

    item: Item
    names: Mapping[str, str]
    values: Mapping[str, Value]
    used: set[str] = field(default_factory=set)

    def name(self, token: str) -> str:
        """Return the attribute that ``token`` names."""
        if not token.startswith("#"):
            return token
        if token not in self.names:
            msg = f"an expression attribute name used in the document path is not defined: {token}"
            raise ExpressionError(msg)
        return self.names[token]

    def value(self, token: str) -> Value:
        """Return the value that ``token`` stands for."""
        if token not in self.values:
            msg = f"an expression attribute value used in expression is not defined: {token}"
            raise ExpressionError(msg)
        return self.values[token]


Operand = Callable[[Scope], Value | None]
Condition = Callable[[Scope], bool]


def comparable(value: Value) -> tuple[str, Any]:
    """Return a value in a form that compares as DynamoDB compares it."""
    kind, inner = next(iter(value.items()))
    if kind == "N":
        return kind, Decimal(inner)
    if kind in {"SS", "BS"}:
        return kind, frozenset(inner)
    if kind == "NS":
        return kind, frozenset(Decimal(part) for part in inner)
    if kind == "L":
        return kind, tuple(comparable(part) for part in inner)
    if kind == "M":
        return kind, frozenset((name, comparable(part)) for name, part in inner.items())
    return kind, inner


def _equal(left: Value | None, right: Value | None) -> bool:
    return left is not None and right is not None and comparable(left) == comparable(right)


def _ordered(left: Value | None, right: Value | None, operator: str) -> bool:
    if left is None or right is None:
        return False
    (kind, a), (other, b) = comparable(left), comparable(right)
    if kind != other or kind not in {"S", "N", "B"}:
        return False
    if kind == "S":
        a, b = a.encode(), b.encode()
    return bool({"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator])


class Parser:
    """A recursive-descent parser over one expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        self.used: set[str] = set()
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                msg = f"syntax error in {text!r} at {position}"
                raise ExpressionError(msg)
            self.tokens.append(match.group(1) or match.group(2))
            position = match.end()
        self.position = 0

    # -- tokens

    def peek(self) -> str:
        """Return the next token, empty at the end."""
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def word(self) -> str:
        """Return the next token if it is a keyword, else an empty string."""
        token = self.peek().upper()
        return token if token in _WORDS else ""

    def take(self, expected: str | None = None) -> str:
        """Consume one token."""
        token = self.peek()
        if not token or (expected is not None and token.upper() != expected):
            msg = f"syntax error in {self.text!r}: {token!r} where {expected or 'more'} should be"
            raise ExpressionError(msg)
        self.position += 1
        return token

    def end(self) -> None:
        """Check that nothing is left over."""
        if self.peek():
            msg = f"syntax error in {self.text!r}: {self.peek()!r} is left over"
            raise ExpressionError(msg)

    # -- conditions

    def condition(self) -> Condition:
        """``a OR b``."""
        parts = [self._and()]
        while self.word() == "OR":
            self.take()
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else lambda s: any(part(s) for part in parts)

    def _and(self) -> Condition:
        parts = [self._not()]
        while self.word() == "AND":
            self.take()
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda s: all(part(s) for part in parts)

    def _not(self) -> Condition:
        if self.word() == "NOT":
            self.take()
            inner = self._not()
            return lambda s: not inner(s)
        if self.peek() == "(":
            self.take()
            inner = self.condition()
            self.take(")")
            return inner
        return self._predicate()

    def _predicate(self) -> Condition:
        token = self.peek()
        following = self.tokens[self.position + 1 : self.position + 2]
        if following == ["("] and token != "size":
            return self._function(self.take())
        left = self.operand()
        if self.word() == "IN":
            self.take()
            choices = self._arguments()
            return lambda s: any(_equal(left(s), choice(s)) for choice in choices)
        if self.word() == "BETWEEN":
            self.take()
            low = self.operand()
            self.take("AND")
            high = self.operand()
            return lambda s: _ordered(left(s), low(s), ">=") and _ordered(left(s), high(s), "<=")
        operator = self.take()
        right = self.operand()
        if operator == "=":
            return lambda s: _equal(left(s), right(s))
        if operator == "<>":
            return lambda s: not _equal(left(s), right(s))
        if operator not in {"<", "<=", ">", ">="}:
            msg = f"syntax error in {self.text!r}: {operator!r} compares nothing"
            raise ExpressionError(msg)
        return lambda s: _ordered(left(s), right(s), operator)

    def _arguments(self) -> list[Operand]:
        self.take("(")
        found = [self.operand()]
        while self.peek() == ",":
            self.take()
            found.append(self.operand())
        self.take(")")
        return found

    def _function(self, name: str) -> Condition:
        arguments = self._arguments()
        arity = {"attribute_exists": 1, "attribute_not_exists": 1, "begins_with": 2, "contains": 2}
        if arity.get(name) != len(arguments):
            msg = f"invalid function or wrong number of operands: {name}"
            raise ExpressionError(msg)
        first = arguments[0]
        if name == "attribute_exists":
            return lambda s: first(s) is not None
        if name == "attribute_not_exists":
            return lambda s: first(s) is None
        test = _begins_with if name == "begins_with" else _contains
        second = arguments[1]
        return lambda s: test(first(s), second(s))

    def operand(self) -> Operand:
        """A path, a value, or ``size(path)``."""
        token = self.take()
        if token.startswith(":"):
            self.used.add(token)
            return lambda s: s.value(token)
        if token == "size" and self.peek() == "(":
            self.take("(")
            inner = self.operand()
            self.take(")")
            return lambda s: _size(inner(s))
        return self._path(token)

    def _path(self, token: str) -> Operand:
        tokens = [self.path_name(token)]
        while self.peek() == ".":
            self.take()
            tokens.append(self.path_name(self.take()))
        if len(tokens) == 1:
            return lambda s: s.item.get(s.name(token))
        return lambda s: _within(s.item, [s.name(part) for part in tokens])

    def path_name(self, token: str) -> str:
        """Check that a token can name an attribute."""
        if token.startswith("#"):
            self.used.add(token)
        elif not token[0].isalpha() and token[0] != "_":
            msg = f"syntax error in {self.text!r}: {token!r} names no attribute"
            raise ExpressionError(msg)
        elif token.upper() in _RESERVED or token.upper() in _WORDS:
            msg = f"attribute name is a reserved keyword: {token}"
            raise ExpressionError(msg)
        return token


def _within(item: Item, names: list[str]) -> Value | None:
    """Return the value at a path of ``names``; None if there is none."""
    value: Value = {"M": item}
    for name in names:
        if name not in value.get("M", {}):
            return None
        value = value["M"][name]
    return value


def _begins_with(left: Value | None, right: Value | None) -> bool:
    if left is None or right is None or "S" not in left or "S" not in right:
        return False
    return bool(left["S"].startswith(right["S"]))


def _contains(left: Value | None, right: Value | None) -> bool:
    if left is None or right is None:
        return False
    kind, inner = next(iter(left.items()))
    wanted = next(iter(right.values()))
    if kind in {"S", "SS", "NS"}:
        return wanted in inner
    return kind == "L" and any(_equal(part, right) for part in inner)


def _size(value: Value | None) -> Value | None:
    if value is None:
        return None
    kind, inner = next(iter(value.items()))
    return {"N": str(len(inner))} if kind in {"S", "B", "SS", "NS", "BS", "L", "M"} else None


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed condition, and the placeholders in it."""

    test: Condition
    used: frozenset[str]


@lru_cache(maxsize=4096)
def parse_condition(text: str) -> Parsed:
    """Parse a condition, key condition or filter.

    Raises:
        ExpressionError: it is not well formed.
    """
    parser = Parser(text)
    test = parser.condition()
    parser.end()
    return Parsed(test, frozenset(parser.used))


@lru_cache(maxsize=256)
def parse_projection(text: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Parse a projection of top-level attributes; returns its tokens and placeholders."""
    parser = Parser(text)
    found = [parser.path_name(parser.take())]
    while parser.peek() == ",":
        parser.take()
        found.append(parser.path_name(parser.take()))
    parser.end()
    return tuple(found), frozenset(parser.used)
