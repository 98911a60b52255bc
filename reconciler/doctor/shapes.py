"""Compares tables (keys, indexes, time to live, stream) with ``reconciler.tables``.

Missing parts that only the platform uses give a warning, because table names may have been mixed
up. All problems of the index in ``ACTIVE_INDEX_NAME`` are reported at once, because an operator
created it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.doctor.findings import Finding, failure, ok, warning
from reconciler.settings import Settings
from reconciler.tables import Index, Table, tables_of

CHECK = "tables"
_WITH_NEW_IMAGE = frozenset({"NEW_IMAGE", "NEW_AND_OLD_IMAGES"})
_ON = frozenset({"ENABLED", "ENABLING"})
ORCHESTRATIONS = "OrchestrationTable"
MANY_ROWS = 5_000_000
"""From this many rows on, mention that an index may help."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A table that the settings name.

    ``queried``: the indexes that we query. ``active``: the one in ``ACTIVE_INDEX_NAME``.
    """

    title: str
    setting: str
    name: str
    table: Table
    queried: tuple[str, ...]
    active: str | None


_MAKE_IT = "correct ACTIVE_INDEX_NAME, or create it (docs/deploying.md); until then, unset it"
_ANOTHER = (
    "an index cannot be changed: make another (docs/deploying.md), name that in "
    "ACTIVE_INDEX_NAME, and unset it until then"
)
_WAIT = "unset ACTIVE_INDEX_NAME until it is ACTIVE: a sweep by it fails"

_QUERIED = {
    "orchestration": ("ChildTaskIndex",),
    "task": ("IdempotencyIndex", "UserStatusIndex", "StatusIndex"),
}


def wanted_tables(settings: Settings) -> list[Wanted]:
    """Return the tables that these settings name."""
    wanted = []
    for use, (name, table) in tables_of(settings).items():
        active = settings.active_index_name if use == "orchestration" else None
        wanted.append(
            Wanted(
                title=f"{use.title().replace('_', '')}Table",
                setting=f"{use}_table_name".upper(),
                name=name,
                table=table,
                queried=(*_QUERIED.get(use, ()), *([active] if active else [])),
                active=active,
            )
        )
    return wanted


def check_shape(
    wanted: Wanted, described: Mapping[str, Any], ttl: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """Compare a table with its expected shape; one finding if all is well.

    ``described``: from DescribeTable. ``ttl``: from DescribeTimeToLive; None if unknown.
    """
    found = [
        *_keys(wanted, described),
        *_indexes(wanted, described),
        *_time_to_live(wanted, ttl),
        *_stream(wanted, described),
    ]
    if found:
        yield from found
        return
    parts = [f"key {' + '.join(wanted.table.keys)}"]
    if wanted.table.indexes:
        parts.append(f"{len(wanted.table.indexes)} indexes")
    if wanted.table.ttl and ttl is not None:
        parts.append("time to live")
    if wanted.table.stream:
        parts.append("stream with new images")
    if wanted.active is not None:
        parts.append(f"swept by {wanted.active}")
    yield ok(CHECK, wanted.title, f"{wanted.name}: {', '.join(parts)}")


def keys_fit(wanted: Wanted, described: Mapping[str, Any]) -> bool:
    """Whether the table has the expected key."""
    return not list(_keys(wanted, described))


def mention_an_index(wanted: Wanted, described: Mapping[str, Any]) -> Iterator[Finding]:
    """Mention the index of active children if a large OrchestrationTable has none.

    Not a warning, because whether it pays off depends on the share of history and on costs.
    """
    rows = int(described.get("ItemCount", 0))
    if wanted.title == ORCHESTRATIONS and wanted.active is None and rows > MANY_ROWS:
        said = (
            f"each sweep reads all of its {rows:,} rows; with an index, most sweeps read only what "
            "is active (ACTIVE_INDEX_NAME, docs/scaling.md)"
        )
        yield ok(CHECK, wanted.title, said)


def _key_names(schema: list[Mapping[str, str]]) -> tuple[str, ...]:
    ordered = sorted(schema, key=lambda key: key["KeyType"] != "HASH")
    return tuple(key["AttributeName"] for key in ordered)


def _keys(wanted: Wanted, described: Mapping[str, Any]) -> Iterator[Finding]:
    keys = _key_names(described["KeySchema"])
    types = {a["AttributeName"]: a["AttributeType"] for a in described["AttributeDefinitions"]}
    right = " + ".join(wanted.table.keys)
    if keys != wanted.table.keys:
        said = f"{wanted.name} has the key {' + '.join(keys)}, and {right} was expected"
        advice = f"see that {wanted.setting} names the {wanted.title}, and not another table"
        yield failure(CHECK, wanted.title, said, advice)
    elif any(types.get(key, "S") != "S" for key in keys):
        said = f"{wanted.name} has a key that is not a string"
        yield failure(CHECK, wanted.title, said, f"the key {right} must be of type S")


def _indexes(wanted: Wanted, described: Mapping[str, Any]) -> Iterator[Finding]:
    there = {index["IndexName"]: index for index in described.get("GlobalSecondaryIndexes", ())}
    types = {a["AttributeName"]: a["AttributeType"] for a in described["AttributeDefinitions"]}
    for index in wanted.table.indexes:
        found = there.get(index.name)
        right = f"key {' + '.join(index.keys)}, projection {index.projection}"
        for problem, advice in _index_problems(wanted.table, index, found, types):
            said = f"index {index.name} {problem}"
            if index.name == wanted.active:
                yield failure(CHECK, wanted.title, said, advice)
            elif index.name in wanted.queried:
                yield failure(CHECK, wanted.title, said, f"the table needs it: {right}")
            else:
                spared = f"the reconciler does not need it, but the platform may: {right}"
                yield warning(CHECK, wanted.title, said, spared)


def _index_problems(
    table: Table, index: Index, found: Mapping[str, Any] | None, types: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the problems of an index, each with advice if ``ACTIVE_INDEX_NAME`` names it."""
    if found is None:
        yield "is missing", _MAKE_IT
        return
    keys = _key_names(found["KeySchema"])
    if keys != index.keys:
        right = " + ".join(index.keys)
        yield f"has the key {' + '.join(keys)}, and {right} was expected", _ANOTHER
    for key in keys:
        if types.get(key, "S") != "S":
            yield f"has the key {key} of type {types[key]}, and not of type S", _ANOTHER
    missing = _not_projected(table, index, found)
    if missing:
        yield f"does not project {', '.join(missing)}", _ANOTHER
    # Emulators omit the status.
    status = found.get("IndexStatus", "ACTIVE")
    if found.get("Backfilling") or status not in {"ACTIVE", "UPDATING"}:
        filled = ", and is still being filled" if found.get("Backfilling") else ""
        yield f"is {status}{filled}", _WAIT


def _not_projected(table: Table, index: Index, found: Mapping[str, Any]) -> list[str]:
    projection = found["Projection"]
    if projection["ProjectionType"] == "ALL":
        return []
    if index.projection == "ALL":
        return ["all attributes"]
    # An index always projects its own keys and the table's.
    there = {*table.keys, *_key_names(found["KeySchema"]), *projection.get("NonKeyAttributes", ())}
    return [name for name in (*index.keys, *index.include) if name not in there]


def _time_to_live(wanted: Wanted, ttl: Mapping[str, Any] | None) -> Iterator[Finding]:
    if not wanted.table.ttl or ttl is None:
        return
    if ttl.get("TimeToLiveStatus") not in _ON:
        said, advice = "time to live is off", "switch it on, with the attribute `ttl`"
    elif ttl.get("AttributeName") != "ttl":
        said = f"time to live uses the attribute {ttl.get('AttributeName')}"
        advice = "it must use `ttl`"
    else:
        return
    why = "or our rows are never deleted"
    yield warning(CHECK, wanted.title, said, f"{advice}, {why}")


def _stream(wanted: Wanted, described: Mapping[str, Any]) -> Iterator[Finding]:
    if not wanted.table.stream:
        return
    stream = described.get("StreamSpecification") or {}
    view = stream.get("StreamViewType") if stream.get("StreamEnabled") else None
    if view not in _WITH_NEW_IMAGE:
        said = f"its stream has the view {view}" if view else "it has no stream"
        advice = (
            "the live reconciler hears of nothing, and a nudge reaches nobody: switch the stream "
            "on with NEW_IMAGE"
        )
        yield failure(CHECK, wanted.title, said, advice)
