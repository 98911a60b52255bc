"""Converts between DynamoDB's typed JSON and plain values.

boto3's serializer does not fit: it refuses numbers that DynamoDB takes (1E+60, written out), takes
some that DynamoDB refuses (1E+126), and nests without limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from reconciler.domain.model import Item

MAX_LEVELS = 32
"""DynamoDB's limit on nesting."""

_MAX_DIGITS = 38
_MIN_EXPONENT, _MAX_EXPONENT = -130, 125


def row_key(orchestration_id: str, sub_issue_id: str) -> Item:
    """Return the key of a row of OrchestrationTable."""
    return {"orchestration_id": {"S": orchestration_id}, "sub_issue_id": {"S": sub_issue_id}}


def text(item: Item, *names: str) -> str | None:
    """Return the first of the attributes ``names`` that is a non-empty string, else None."""
    for name in names:
        value = item.get(name)
        if value is not None:
            found = value.get("S")
            if isinstance(found, str) and found:
                return found
    return None


def texts(item: Item) -> dict[str, str]:
    """Return all attributes that are strings."""
    found = {name: value.get("S") for name, value in item.items()}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def number(item: Item, name: str) -> int | None:
    """Return a whole, non-negative number, else None."""
    value = item.get(name)
    raw = value.get("N") if value is not None else None
    return int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() else None


def decimal(item: Item, name: str) -> Decimal | None:
    """Return a finite number of any size and sign, else None."""
    value = item.get(name)
    raw = value.get("N") if value is not None else None
    if not isinstance(raw, str):
        return None
    try:
        found = Decimal(raw)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def plain(value: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON-like value may stand there
    """Turn one typed value into plain Python; numbers stay text."""
    for kind, inner in value.items():
        if kind == "M":
            return {name: plain(part) for name, part in inner.items()}
        if kind == "L":
            return [plain(part) for part in inner]
        if kind == "NULL":
            return None
        return inner
    return None


def typed(value: object, levels: int = MAX_LEVELS) -> dict[str, Any]:
    """Turn a JSON value into DynamoDB's typed JSON, nested at most ``levels`` deep.

    Raises:
        ValueError: an item cannot hold it.
    """
    if levels == 0:
        raise ValueError("it is nested too deep")
    if isinstance(value, Mapping):
        return {"M": {_sound(str(name)): typed(part, levels - 1) for name, part in value.items()}}
    if isinstance(value, list | tuple):
        return {"L": [typed(part, levels - 1) for part in value]}
    return _typed_scalar(value)


def _typed_scalar(value: object) -> dict[str, Any]:
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": _number(value)}
    if isinstance(value, str):
        return {"S": _sound(value)}
    raise ValueError(f"an item cannot hold a {type(value).__name__}")


def _sound(value: str) -> str:
    """Return a string unchanged.

    Raises:
        ValueError: it holds a lone surrogate, which cannot be encoded.
    """
    value.encode()
    return value


def _number(value: float) -> str:
    """Return a number as text: up to 38 digits, from 1E-130 to below 1E+126."""
    exact = Decimal(str(value))
    if exact.is_zero():
        return "0"
    digits = len("".join(map(str, exact.as_tuple().digits)).strip("0"))
    fits = exact.is_finite() and _MIN_EXPONENT <= exact.adjusted() <= _MAX_EXPONENT
    if not fits or digits > _MAX_DIGITS:
        raise ValueError("it holds a number that is too large, too small or too long")
    return str(value)


def size_of(item: Item) -> int:
    """Return how many bytes of DynamoDB's 400 KB an item takes, at most."""
    return sum(len(name.encode()) + _size_of_value(value) for name, value in item.items())


def _size_of_value(value: Mapping[str, Any]) -> int:
    ((kind, inner),) = value.items()
    if kind == "M":
        return 3 + len(inner) + size_of(inner)
    if kind == "L":
        return 3 + sum(1 + _size_of_value(part) for part in inner)
    if kind in {"NULL", "BOOL"}:
        return 1
    if kind in {"SS", "NS", "BS"}:
        return 3 + sum(1 + _bytes_of(part) for part in inner)
    return _bytes_of(inner)


def _bytes_of(scalar: object) -> int:
    return len(scalar if isinstance(scalar, bytes) else str(scalar).encode())
