"""Typed JSON: values read from an item, values written into one, and its size."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from reconciler.stores.items import decimal, number, plain, size_of, text, texts, typed


def test_the_first_usable_spelling_counts() -> None:
    item = {"new": {"S": "n"}, "old": {"S": "o"}, "empty": {"S": ""}, "odd": {"N": "1"}}
    assert text(item, "new", "old") == "n"
    assert text(item, "none", "old") == "o"
    assert text(item, "empty", "old") == "o"
    assert text(item, "odd", "old") == "o"
    assert text(item, "none") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"N": "0"}, 0),
        ({"N": "12"}, 12),
        ({"N": "-1"}, None),
        ({"N": "1.5"}, None),
        ({"N": "1e3"}, None),
        ({"N": "٣"}, None),
        ({"S": "12"}, None),
        ({"NULL": True}, None),
        (None, None),
    ],
)
def test_numbers_are_whole_and_not_negative(value: Any, expected: int | None) -> None:
    assert number({} if value is None else {"n": value}, "n") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"N": "1"}, Decimal(1)),
        ({"N": "-1.50"}, Decimal("-1.5")),
        ({"N": "1E+2"}, Decimal(100)),
        ({"N": "ten"}, None),
        ({"N": "NaN"}, None),
        ({"N": "Infinity"}, None),
        ({"S": "1"}, None),
        ({"N": 1}, None),
        (None, None),
    ],
)
def test_decimals_are_finite_numbers(value: Any, expected: Decimal | None) -> None:
    assert decimal({} if value is None else {"n": value}, "n") == expected


def test_typed_values_become_plain_values() -> None:
    typed = {"M": {"l": {"L": [{"S": "x"}, {"N": "1"}, {"NULL": True}]}, "b": {"BOOL": False}}}
    assert plain(typed) == {"l": ["x", "1", None], "b": False}
    assert plain({}) is None


def test_texts_are_only_the_strings() -> None:
    item: Any = {"a": {"S": "x"}, "b": {"S": ""}, "c": {"N": "1"}, "d": {"NULL": True}}
    assert texts(item) == {"a": "x", "b": ""}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {"NULL": True}),
        (True, {"BOOL": True}),
        (False, {"BOOL": False}),
        (0, {"N": "0"}),
        (0.0, {"N": "0"}),
        (-3, {"N": "-3"}),
        (1.5, {"N": "1.5"}),
        ("", {"S": ""}),
        (("x", [1]), {"L": [{"S": "x"}, {"L": [{"N": "1"}]}]}),
        ({"a": {}, 1: []}, {"M": {"a": {"M": {}}, "1": {"L": []}}}),
    ],
)
def test_json_values_become_typed_values(value: object, expected: dict[str, Any]) -> None:
    assert typed(value) == expected


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (int("9" * 38), True),
        (-int("9" * 38), True),
        (int("9" * 39), False),
        (int("1" + "0" * 60), True),
        (1e125, True),
        (1e126, False),
        (1e-130, True),
        (1e-131, False),
        (float("inf"), False),
    ],
)
def test_numbers_beyond_dynamodbs_limits_are_refused(value: float, *, fits: bool) -> None:
    """A number has at most 38 digits, and its exponent is limited."""
    if fits:
        assert typed(value) == {"N": str(value)}
    else:
        with pytest.raises(ValueError, match="too large, too small or too long"):
            typed(value)


@pytest.mark.parametrize("kind", ["list", "map"])
def test_values_nest_at_most_32_levels_deep(kind: str) -> None:
    value: object = "x"
    for _ in range(31):
        value = [value] if kind == "list" else {"a": value}
    assert str(typed(value)).count("'S'") == 1
    with pytest.raises(ValueError, match="nested too deep"):
        typed([value])


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, {1, 2}, float("nan")])
def test_an_unstorable_value_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match=r"surrogates|cannot hold|number"):
        typed(value)


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({}, 0),
        ({"ab": {"S": "é"}}, 4),
        ({"a": {"N": "123"}}, 4),
        ({"a": {"NULL": True}}, 2),
        ({"a": {"BOOL": False}}, 2),
        ({"a": {"B": b"xyz"}}, 4),
        ({"a": {"SS": ["é", "yz"]}}, 1 + 3 + 3 + 3),
        ({"a": {"NS": ["1"]}}, 1 + 3 + 2),
        ({"a": {"BS": [b"xy"]}}, 1 + 3 + 3),
        ({"a": {"L": [{"S": "x"}, {"NULL": True}]}}, 1 + 3 + 2 + 2),
        ({"a": {"M": {"b": {"S": "x"}}}}, 1 + 3 + 1 + 2),
    ],
)
def test_an_items_size_counts_names_and_values(item: dict[str, Any], size: int) -> None:
    assert size_of(item) == size
