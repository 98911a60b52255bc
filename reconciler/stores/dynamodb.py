"""The DynamoDB client: counts every call, and translates faults into the errors of this package.

``ClientError`` is caught only here. A failed condition is not an error: it is returned as a value,
with the item found.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from reconciler.aws_errors import (
    CONDITION_FAILED,
    CONFLICTS,
    RAISED,
    THROTTLES,
    code_of,
    translate,
    translate_refusal,
)
from reconciler.domain.model import Item
from reconciler.errors import ConflictError, ReconcilerError, ThrottledError
from reconciler.observability.metrics import NULL_METRICS, Metrics
from reconciler.observability.outages import Outages
from reconciler.stores.conditions import Write, projection

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_READS = frozenset({"get_item", "batch_get_item", "query", "scan", "describe_table"})

_SINGLE_WRITES = frozenset({"put_item", "update_item", "delete_item"})

_CANCELLED = "TransactionCanceledException"
_CONDITION_LOST = frozenset({f"{CONDITION_FAILED}Exception", _CANCELLED})
_HELD_BY_ANSWERS = {
    "batch_get_item": "Responses",
    # ``Item`` is missing if the item does not exist.
    "get_item": "ConsumedCapacity",
    "query": "Items",
    "scan": "Items",
}

_MAX_BYTES_PER_UNIT = 8 * 1024
_MIN_FULL_BYTES = (1024 - 400) * 1024

MAX_KEYS_PER_BATCH = 100
_BATCH_ROUNDS = 5
_ATTEMPTS = 6
_BASE_PAUSE_SECONDS = 0.05
_MAX_PAUSE_SECONDS = 2.0


@dataclass(slots=True)
class Consumed:
    """Consumed capacity units and requests, including retries."""

    read_units: float = 0.0
    write_units: float = 0.0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A transaction whose conditions failed.

    ``failed``: label of each write whose condition failed → the item found (``ALL_OLD``), empty if
    there was none. ``repeated``: it was sent more than once, so an earlier try may have been
    committed.
    """

    failed: Mapping[str, Item]
    repeated: bool = False


_measured: ContextVar[tuple[Consumed, ...]] = ContextVar("consumed", default=())


@contextmanager
def measured() -> Iterator[Consumed]:
    """Measure what the block consumes, in this thread or task; blocks can be nested."""
    consumed = Consumed()
    token = _measured.set((*_measured.get(), consumed))
    try:
        yield consumed
    finally:
        _measured.reset(token)


class DynamoDB:
    """Wraps the low-level client: measures consumption and translates faults."""

    def __init__(
        self,
        client: DynamoDBClient,
        metrics: Metrics = NULL_METRICS,
        sleep: Callable[[float], None] = time.sleep,
        outages: Outages | None = None,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._sleep = sleep
        self._outages = outages or Outages()

    def call(self, operation: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - the client's
        """Call ``operation`` of the low-level client.

        A write is retried with jittered backoff while a transaction holds its item.

        Raises:
            TemporaryError: DynamoDB could not be reached, or throttling, or a conflict.
            PermanentError: a missing table, missing permissions, or a rejected request.
            ClientError: a failed condition; only for callers in this module.
        """
        if operation in _SINGLE_WRITES:
            return self._retrying(ConflictError)(self._call, operation, request)
        return self._call(operation, request)

    def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        # Every other operation consumes capacity.
        if operation != "describe_table":
            request["ReturnConsumedCapacity"] = "TOTAL"
        what = _shown(operation, request)
        try:
            response: dict[str, Any] = getattr(self._client, operation)(**request)
            _check(operation, response)
        except RAISED as error:
            if isinstance(error, ClientError):
                self._count(operation, error.response)
                # A failed condition is an answer, which the caller interprets.
                if code_of(error) in _CONDITION_LOST:
                    self._outages.succeeded(what)
                    raise
            fault = translate(error, what)
            self._outages.failed(what, fault)
            raise fault from error
        self._outages.succeeded(what)
        self._count(operation, response)
        return response

    def pages(self, operation: str, **request: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
        """Yield all pages of a query or a scan; raises as ``call``."""
        while True:
            page = self.call(operation, **request)
            yield page
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def query(self, **request: Any) -> list[Item]:  # noqa: ANN401 - the client's
        """Return all items of a query, however many pages they fill; raises as ``call``."""
        return [item for page in self.pages("query", **request) for item in page["Items"]]

    def batch_get(
        self,
        table: str,
        keys: Iterable[Item],
        *,
        consistent: bool,
        attributes: Sequence[str] = (),
    ) -> list[Item] | None:
        """Read up to 100 items by key; None if some could not be read because of throttling.

        Raises as ``call``.
        """
        pending: dict[str, Any] = {"Keys": list(keys), "ConsistentRead": consistent}
        if attributes:
            pending |= projection(attributes)
        items: list[Item] = []
        refused = 0
        while True:
            response = self.call("batch_get_item", RequestItems={table: pending})
            found = response.get("Responses", {}).get(table, ())
            items.extend(found)
            unprocessed = response.get("UnprocessedKeys") or {}
            if table not in unprocessed:
                return items
            pending = unprocessed[table]
            # If the answer was full, ask for the rest at once. It gets smaller each time.
            if found and _may_be_full(response, table):
                continue
            refused += 1
            if refused == _BATCH_ROUNDS:
                return None
            self._stand_back(refused)

    def _stand_back(self, attempt: int) -> None:
        """Wait before the ``attempt``-th retry of a request that was served only in part."""
        most = min(_BASE_PAUSE_SECONDS * 2**attempt, _MAX_PAUSE_SECONDS)
        self._sleep(random.uniform(0, most))  # noqa: S311 - spreads load, keeps no secret

    def get(self, table: str, key: Item) -> Item | None:
        """Read one item, strongly consistent; None if it does not exist. Raises as ``call``."""
        got = self.call("get_item", TableName=table, Key=key, ConsistentRead=True)
        return got.get("Item")

    def write(self, write: Write) -> Item | None:
        """Write one item under its condition.

        Returns None if it was written, or the item found if the condition failed.
        """
        ((kind, request),) = write.items()
        try:
            self.call(f"{kind.lower()}_item", **request)
        except ClientError as error:
            item: Item = error.response.get("Item", {})  # type: ignore[assignment]
            return item
        return None

    def transact(self, writes: Mapping[str, Write]) -> Cancelled | None:
        """Write all of ``writes`` (1 to 100, each with a label of the caller's choice) or none.

        Conflicts and throttling are retried with jittered backoff, and raised if they persist.
        Returns None after a commit. All tries share one client token: if the answer to an earlier
        one was lost, DynamoDB reports its commit instead of a failed condition.
        """
        retrying = self._retrying(ConflictError, ThrottledError)
        lost = retrying(self._transact_once, writes, str(uuid.uuid4()))
        if lost is not None and retrying.statistics["attempt_number"] > 1:
            return replace(lost, repeated=True)
        return lost

    def _retrying(self, *errors: type[ReconcilerError]) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(errors),
            wait=wait_random_exponential(_BASE_PAUSE_SECONDS, _MAX_PAUSE_SECONDS),
            stop=stop_after_attempt(_ATTEMPTS),
            sleep=self._sleep,
            reraise=True,
        )

    def _transact_once(self, writes: Mapping[str, Write], client_token: str) -> Cancelled | None:
        try:
            self.call(
                "transact_write_items",
                TransactItems=list(writes.values()),
                ClientRequestToken=client_token,
            )
        except ClientError as error:
            reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
            # There is one reason for each write, in order.
            failed: dict[str, Item] = {
                label: reason.get("Item") or {}
                for label, reason in zip(writes, reasons, strict=False)
                if reason.get("Code") == CONDITION_FAILED
            }
            if failed:
                sent_again = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
                return Cancelled(failed, repeated=sent_again > 0)
            codes = {reason.get("Code") for reason in reasons}
            if codes & CONFLICTS:
                msg = "another transaction holds one of the rows"
                raise ConflictError(msg) from error
            if codes & THROTTLES:
                raise ThrottledError(str(error)) from error
            raise self._refused(reasons, str(error), writes.values()) from error
        return None

    def _count(self, operation: str, response: Mapping[str, Any]) -> None:
        # The client's own retries are requests too.
        attempts = 1 + response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
        consumed = response.get("ConsumedCapacity") or []
        entries = consumed if isinstance(consumed, list) else [consumed]
        read = operation in _READS
        units = 0.0
        for entry in entries:
            part = float(entry.get("CapacityUnits", 0.0))
            units += part
            self._metrics.increment(
                "reconciler_dynamodb_units_total",
                part,
                table=entry.get("TableName", "").rpartition("/")[2],
                operation=operation,
            )
        for meter in _measured.get():
            meter.requests += attempts
            if read:
                meter.read_units += units
            else:
                meter.write_units += units

    def _refused(
        self, reasons: Iterable[Mapping[str, Any]], said: str, writes: Iterable[Write]
    ) -> ReconcilerError:
        """Return the error for a transaction that was cancelled, but not by a condition."""
        what = _shown("transact_write_items", {"TransactItems": writes})
        known = ((r.get("Code") or "None", r.get("Message") or said) for r in reasons)
        code, message = next((one for one in known if one[0] != "None"), (_CANCELLED, said))
        fault = translate_refusal(code, message, what)
        self._outages.failed(what, fault)
        return fault


def _shown(operation: str, request: Mapping[str, Any]) -> str:
    """Describe a request: its operation and its tables."""
    index = f"/{request['IndexName']}" if "IndexName" in request else ""
    return f"{operation} on {', '.join(sorted(set(_tables_of(request))))}{index}"


def _check(operation: str, response: Mapping[str, Any]) -> None:
    """Check that an answer comes from DynamoDB, not from something in between.

    Raises:
        ResponseParserError: it lacks what every such answer contains.
    """
    expected = _HELD_BY_ANSWERS.get(operation)
    if expected is not None and expected not in response:
        raise ResponseParserError(f"the answer holds no {expected}")


def count_throttles(client: DynamoDBClient, metrics: Metrics) -> None:
    """Count from now on every throttled request of ``client``, including retries.

    The client retries silently, so a table can be throttled for hours before anything fails.
    """

    def sent(params: Mapping[str, Any], context: dict[str, Any], **_: object) -> None:
        context["reconciler_tables"] = _tables_of(params)

    def received(
        parsed_response: Mapping[str, Any] | None, context: Mapping[str, Any], **_: object
    ) -> None:
        tables: tuple[str, ...] = context.get("reconciler_tables", ())
        for table in _throttled(parsed_response or {}, tables):
            metrics.increment("reconciler_dynamodb_throttles_total", table=table)

    client.meta.events.register("before-parameter-build.dynamodb", sent)
    client.meta.events.register("response-received.dynamodb", received)


def _tables_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tables of a request; for a transaction, one per action, in order."""
    if "TransactItems" in params:
        return tuple(next(iter(action.values()))["TableName"] for action in params["TransactItems"])
    if "RequestItems" in params:
        return tuple(params["RequestItems"])
    return (params["TableName"],) if "TableName" in params else ()


def _throttled(response: Mapping[str, Any], tables: tuple[str, ...]) -> set[str]:
    """Return the tables that throttled a request or a part of it."""
    if response.get("Error", {}).get("Code") in THROTTLES:
        return set(tables)
    reasons = response.get("CancellationReasons") or []
    refused = {
        table
        for table, reason in zip(tables, reasons, strict=False)
        if reason.get("Code") in THROTTLES
    }
    # A throttled batch is served in part, and the other keys are given back.
    given_back = set(response.get("UnprocessedKeys") or ())
    return refused | {table for table in given_back if not _may_be_full(response, table)}


def _may_be_full(response: Mapping[str, Any], table: str) -> bool:
    """Whether a batch may have given keys of ``table`` back because its answer was full.

    It is full at 16 MB, or 1 MB from one partition, and the next item, which did not fit, has at
    most 400 KB. The consumed units show how much was read, since an answer holds only projections.
    """
    consumed = response.get("ConsumedCapacity") or []
    name = table.rpartition("/")[2]
    units: float = sum(
        entry.get("CapacityUnits", 0.0)
        for entry in consumed
        if entry.get("TableName", "").rpartition("/")[2] == name
    )
    # A unit is 4 KB if the read was strongly consistent, else 8 KB: assume the larger.
    return units * _MAX_BYTES_PER_UNIT >= _MIN_FULL_BYTES
