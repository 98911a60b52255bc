"""Every condition of every write taken to its parts, each of which can be left out or narrowed.

A condition is built in a store's method (its *site*): joined by AND, each part about one attribute.
The parts are not listed anywhere: they are what the sites build when they are called. A ``Mutant``
makes one site build one part less:

- *without* a part: the write goes through where it should have been refused;
- *narrower*: one value of an IN, or one side of an OR, is gone, so that it is refused where it
  should have gone through;
- *off by one*: a ``<`` is a ``<=``.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from unittest.mock import patch

from reconciler.stores import budget, control, orchestrations, tasks
from reconciler.stores.conditions import Write

STORES = (orchestrations, tasks, budget, control)
_BUILDERS = ("update", "check", "put_new")
_HELPERS = frozenset({"_change", "_change_unreleased", "_check", "_touch", "_site"})
_ALWAYS = "(attribute_exists(#{0}) OR attribute_not_exists(#{0}))"
_PLACEHOLDER = re.compile(r"[#:]\w+")


@dataclass(frozen=True, slots=True, order=True)
class Mutant:
    """A site whose condition is changed in one part, told in words."""

    site: str
    change: str

    def __str__(self) -> str:
        """Return it as it is listed."""
        return f"{self.site}: {self.change}"


def variants(request: dict[str, Any]) -> dict[str, str]:
    """Return every change of a condition, in words, and what is left of the condition then."""
    condition = request["ConditionExpression"]
    names = request.get("ExpressionAttributeNames", {})
    values = request.get("ExpressionAttributeValues", {})
    parts = condition.split(" AND ")
    found: dict[str, str] = {}
    for i, part in enumerate(parts):
        attribute = _attribute(part, names)
        rest = [*parts[:i], *parts[i + 1 :]]
        # A check that asks for nothing is not allowed: it asks for what always holds.
        found[f"without {attribute}"] = " AND ".join(rest) or _ALWAYS.format(attribute)
        for words, changed in _narrowed(part, attribute, values):
            found[words] = " AND ".join([*parts[:i], changed, *parts[i + 1 :]])
    return found


def _attribute(part: str, names: dict[str, str]) -> str:
    """Return what a part is about; an attribute may stand under its own name."""
    placeholders = re.findall(r"#\w+", part)
    return names[placeholders[0]] if placeholders else re.findall(r"\((\w+)\)", part)[0]


def _narrowed(part: str, attribute: str, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    listed = re.fullmatch(r"(#\w+) IN \((.*)\)", part)
    if listed is not None:
        names = listed.group(2).split(", ")
        for name in names:
            value = next(iter(values[name].values()))
            kept = ", ".join(other for other in names if other != name)
            yield f"{attribute} not {value}", f"{listed.group(1)} IN ({kept})"
    if part.startswith("(") and " OR " in part:
        sides = part[1:-1].split(" OR ")
        for side in sides:
            shown = re.sub(r":\w+", "…", side).replace("#", "")
            yield f"{attribute}, not {shown}", " OR ".join(s for s in sides if s != side)
    if " < " in part:
        yield f"{attribute}, one more", part.replace(" < ", " <= ")


def _changed(request: dict[str, Any], condition: str) -> dict[str, Any]:
    """Put a condition into a request, and take out the names and values that it leaves unused."""
    changed = {**request, "ConditionExpression": condition}
    used = set(_PLACEHOLDER.findall(condition + " " + changed.get("UpdateExpression", "")))
    names = changed.get("ExpressionAttributeNames", {})
    always = {word: word[1:] for word in used if word.startswith("#") and word not in names}
    for field in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
        kept = {name: value for name, value in changed.get(field, {}).items() if name in used}
        if field == "ExpressionAttributeNames":
            kept |= always
        changed.pop(field, None)
        if kept:
            changed[field] = kept
    return changed


def _site() -> str:
    """Return the name of the store's method that builds a condition just now."""
    frame = sys._getframe(1)
    ours = {module.__name__ for module in STORES}
    while frame.f_globals.get("__name__") not in ours or frame.f_code.co_name in _HELPERS:
        if frame.f_back is None:
            raise LookupError("a condition that no store builds")
        frame = frame.f_back
    return frame.f_code.co_name


@contextmanager
def watching(mutant: Mutant | None = None) -> Iterator[set[Mutant]]:
    """Within the block, put ``mutant`` in; yields all mutants of the conditions that are built."""
    seen: set[Mutant] = set()

    def change(request: dict[str, Any]) -> dict[str, Any]:
        site = _site()
        found = variants(request)
        seen.update(Mutant(site, words) for words in found)
        if mutant is None or mutant.site != site or mutant.change not in found:
            return request
        return _changed(request, found[mutant.change])

    def builder(original: Callable[..., Write]) -> Callable[..., Write]:
        @wraps(original)
        def build(*args: Any, **kwargs: Any) -> Write:
            ((kind, request),) = original(*args, **kwargs).items()
            return {kind: change(request)}

        return build

    patches = [
        patch.object(module, name, builder(getattr(module, name)))
        for module in STORES
        for name in _BUILDERS
        if hasattr(module, name)
    ]
    for each in patches:
        each.start()
    try:
        yield seen
    finally:
        for each in reversed(patches):
            each.stop()


def sites() -> set[str]:
    """Return the names of all methods of the stores that build a condition, from their source."""
    found = set()
    for module in STORES:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.FunctionDef) and _builds(node):
                found.add(node.name)
    return found - _HELPERS


def _builds(function: ast.FunctionDef) -> bool:
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    named = {f.id for f in calls if isinstance(f, ast.Name)}
    methods = {f.attr for f in calls if isinstance(f, ast.Attribute)}
    return bool(named & set(_BUILDERS) or methods & _HELPERS)
