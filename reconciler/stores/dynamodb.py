"""DynamoDB, metered: every call is counted, and every fault becomes an error of our own.

``ClientError`` is caught here and nowhere else. A lost condition is not an error: it comes back
as a value, with what stood in the table.
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

_CANCELLED = "TransactionCanceledException"
_CONDITION_LOST = frozenset({f"{CONDITION_FAILED}Exception", _CANCELLED})
_HELD_BY_ANSWERS = {
    "batch_get_item": "Responses",
    # An item that does not exist is left out, so what it cost has to do.
    "get_item": "ConsumedCapacity",
    "query": "Items",
    "scan": "Items",
}

_MAX_BYTES_PER_UNIT = 8 * 1024
_MIN_FULL_BYTES = (1024 - 400) * 1024

MAX_KEYS_PER_BATCH = 100
_BATCH_ROUNDS = 5
_ATTEMPTS = 6
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(slots=True)
class Consumed:
    """What was consumed: capacity units and requests (each retry is a request too)."""

    read_units: float = 0.0
    write_units: float = 0.0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A transaction that lost.

    ``failed``: the label of each write whose own condition failed, and what stood there
    (``ALL_OLD``); an empty item where nothing did. ``repeated``: it was sent more than once, so an
    earlier try may have been committed.
    """

    failed: Mapping[str, Item]
    repeated: bool = False


_measured: ContextVar[tuple[Consumed, ...]] = ContextVar("consumed", default=())


@contextmanager
def measured() -> Iterator[Consumed]:
    """Count what is consumed within the block, in this thread or task; blocks may be nested."""
    consumed = Consumed()
    token = _measured.set((*_measured.get(), consumed))
    try:
        yield consumed
    finally:
        _measured.reset(token)


class DynamoDB:
    """The low-level client, metered and with its faults translated."""

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

        Raises:
            TemporaryError: the store could not be reached, was throttled, or was in conflict.
            PermanentError: a missing table, missing permissions, or a request it rejects.
            ClientError: a lost condition; for the callers in this module only.
        """
        # The one operation that consumes nothing.
        if operation != "describe_table":
            request["ReturnConsumedCapacity"] = "TOTAL"
        what = _shown(operation, request)
        try:
            response: dict[str, Any] = getattr(self._client, operation)(**request)
            _check(operation, response)
        except RAISED as error:
            if isinstance(error, ClientError):
                self._count(operation, error.response)
                # A lost condition is an answer: whoever wrote knows what it means.
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
        """Read up to 100 items by key; None when some could not be read for want of capacity.

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
            # The rest of a full answer is asked for at once. It is less each time.
            if found and _may_be_full(response, table):
                continue
            refused += 1
            if refused == _BATCH_ROUNDS:
                return None
            self._stand_back(refused)

    def _stand_back(self, attempt: int) -> None:
        """Wait before the ``attempt``-th repetition of a request that was not served whole."""
        most = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
        self._sleep(random.uniform(0, most))  # noqa: S311 - spreads load, keeps no secret

    def get(self, table: str, key: Item) -> Item | None:
        """Read one item, strongly consistent; None where there is none. Raises as ``call``."""
        got = self.call("get_item", TableName=table, Key=key, ConsistentRead=True)
        return got.get("Item")

    def write(self, write: Write) -> Item | None:
        """Write one item under its condition.

        Returns None when it was written, and what stood there when the condition was lost.
        """
        ((kind, request),) = write.items()
        try:
            self.call(f"{kind.lower()}_item", **request)
        except ClientError as error:
            item: Item = error.response.get("Item", {})  # type: ignore[assignment]
            return item
        return None

    def transact(self, writes: Mapping[str, Write]) -> Cancelled | None:
        """Write all of ``writes`` (1 to 100, each under a label of the caller's choice) or none.

        Conflicts and throttles are retried with jittered backoff; what is still in conflict then
        is an error. Returns None when it was committed. All tries bear one client token: if the
        answer to an earlier one was lost, DynamoDB reports its commit instead of a lost condition.

        Raises:
            ConflictError, ThrottledError, StoreUnavailableError, PermanentError: as ``call``.
        """
        retrying = Retrying(
            retry=retry_if_exception_type((ConflictError, ThrottledError)),
            wait=wait_random_exponential(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS),
            stop=stop_after_attempt(_ATTEMPTS),
            sleep=self._sleep,
            reraise=True,
        )
        lost = retrying(self._transact_once, writes, str(uuid.uuid4()))
        if lost is not None and retrying.statistics["attempt_number"] > 1:
            return replace(lost, repeated=True)
        return lost

    def _transact_once(self, writes: Mapping[str, Write], client_token: str) -> Cancelled | None:
        try:
            self.call(
                "transact_write_items",
                TransactItems=list(writes.values()),
                ClientRequestToken=client_token,
            )
        except ClientError as error:
            reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
            # The service gives one reason for each write, in their order.
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
        # What the client tries again by itself is a request too.
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
        """Return why a transaction was cancelled for another reason than a condition."""
        what = _shown("transact_write_items", {"TransactItems": writes})
        known = ((r.get("Code") or "None", r.get("Message") or said) for r in reasons)
        code, message = next((one for one in known if one[0] != "None"), (_CANCELLED, said))
        fault = translate_refusal(code, message, what)
        self._outages.failed(what, fault)
        return fault


def _shown(operation: str, request: Mapping[str, Any]) -> str:
    """Return what a request does, for a person: its operation, and on what."""
    index = f"/{request['IndexName']}" if "IndexName" in request else ""
    return f"{operation} on {', '.join(sorted(set(_tables_of(request))))}{index}"


def _check(operation: str, response: Mapping[str, Any]) -> None:
    """See that an answer is one of DynamoDB's, and not of something that stands before it.

    Raises:
        ResponseParserError: what every such answer holds is missing.
    """
    expected = _HELD_BY_ANSWERS.get(operation)
    if expected is not None and expected not in response:
        raise ResponseParserError(f"the answer holds no {expected}")


def count_throttles(client: DynamoDBClient, metrics: Metrics) -> None:
    """Count from now on what ``client`` is refused for want of capacity, each retry of it too.

    The client tries again by itself, and says nothing when that helps: a table can be throttled
    for hours before anything fails.
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
    """Return the tables of a request; of a transaction, that of each action in order."""
    if "TransactItems" in params:
        return tuple(next(iter(action.values()))["TableName"] for action in params["TransactItems"])
    if "RequestItems" in params:
        return tuple(params["RequestItems"])
    return (params["TableName"],) if "TableName" in params else ()


def _throttled(response: Mapping[str, Any], tables: tuple[str, ...]) -> set[str]:
    """Return the tables that refused a request, or a part of it, for want of capacity."""
    if response.get("Error", {}).get("Code") in THROTTLES:
        return set(tables)
    reasons = response.get("CancellationReasons") or []
    refused = {
        table
        for table, reason in zip(tables, reasons, strict=False)
        if reason.get("Code") in THROTTLES
    }
    # A batch is served as far as the capacity goes, and the rest of it is given back.
    given_back = set(response.get("UnprocessedKeys") or ())
    return refused | {table for table in given_back if not _may_be_full(response, table)}


def _may_be_full(response: Mapping[str, Any], table: str) -> bool:
    """Return whether a batch may have given keys of ``table`` back because its answer was full.

    It is full at 16 MB, or with 1 MB of one partition; the next item, which did not fit, has 400 KB
    at most. What was read is told by what it cost, since an answer holds only what was projected.
    """
    consumed = response.get("ConsumedCapacity") or []
    name = table.rpartition("/")[2]
    units: float = sum(
        entry.get("CapacityUnits", 0.0)
        for entry in consumed
        if entry.get("TableName", "").rpartition("/")[2] == name
    )
    # Of 4 KB each if the read was strongly consistent, and of 8 KB if not: the larger is assumed.
    return units * _MAX_BYTES_PER_UNIT >= _MIN_FULL_BYTES
