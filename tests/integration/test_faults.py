"""The fault proxy does what it is told to, and each fault becomes a temporary error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from botocore.config import Config

from reconciler.errors import ConflictError, StoreUnavailableError, TemporaryError, ThrottledError
from reconciler.stores.dynamodb import DynamoDB
from tests.conftest import Servers
from tests.support.faults import Fault, FaultProxy, fault_proxy
from tests.support.world import World, build_world, make_session

pytestmark = pytest.mark.integration

EXPECTED: dict[Fault, type[TemporaryError]] = {
    Fault.THROTTLED: ThrottledError,
    Fault.RATE_LIMITED: ThrottledError,
    Fault.CONFLICT: ConflictError,
    Fault.INTERNAL_ERROR: StoreUnavailableError,
    Fault.UNAVAILABLE: StoreUnavailableError,
    Fault.TIMEOUT: StoreUnavailableError,
    Fault.TIMEOUT_AFTER: StoreUnavailableError,
    Fault.TORN: StoreUnavailableError,
    Fault.TORN_AFTER: StoreUnavailableError,
    Fault.TORN_MIDWAY: StoreUnavailableError,
}
SILENT = {Fault.TIMEOUT, Fault.TIMEOUT_AFTER}
CARRIED_OUT = {Fault.TIMEOUT_AFTER, Fault.TORN_AFTER, Fault.TORN_MIDWAY}


@pytest.fixture(scope="module")
def tables(servers: Servers) -> World:
    return build_world(servers.endpoint("dynamodb_local"))


@pytest.fixture(scope="module")
def proxy(tables: World) -> Iterator[FaultProxy]:
    with fault_proxy(tables.endpoint) as found:
        yield found


def impatient(proxy: FaultProxy, read_seconds: float) -> DynamoDB:
    """Return a client that does not retry, so that each fault is seen."""
    config = Config(read_timeout=read_seconds, retries={"total_max_attempts": 1})
    client = make_session(proxy.url).client("dynamodb", config=config)
    return DynamoDB(client, sleep=lambda _: None)


def stands(tables: World, task_id: str) -> bool:
    key = {"task_id": {"S": task_id}}
    name = tables.settings.task_table_name
    return "Item" in tables.client.get_item(TableName=name, Key=key, ConsistentRead=True)


@pytest.mark.parametrize("fault", EXPECTED, ids=str)
def test_each_fault_is_temporary(tables: World, proxy: FaultProxy, fault: Fault) -> None:
    dynamodb = impatient(proxy, 1.0 if fault in SILENT else 60.0)
    name = tables.settings.task_table_name
    one, two = ({"TableName": name, "Item": {"task_id": {"S": f"{fault} {n}"}}} for n in (1, 2))
    proxy.weather = {fault: 1.0}
    try:
        with pytest.raises(EXPECTED[fault]):
            dynamodb.transact({"task": {"Put": one}})
        if fault is not Fault.CONFLICT:
            with pytest.raises(EXPECTED[fault]):
                dynamodb.write({"Put": two})
    finally:
        proxy.weather = {}
    assert proxy.injected[fault] >= 1
    carried_out = fault in CARRIED_OUT
    assert [stands(tables, f"{fault} {n}") for n in (1, 2)] == [carried_out, carried_out]
    assert impatient(proxy, 60.0).write({"Put": two}) is None, (
        "requests succeed once the fault has ended"
    )


def test_a_slow_answer_still_arrives(tables: World, proxy: FaultProxy) -> None:
    proxy.weather = {Fault.SLOW: 1.0}
    client = make_session(proxy.url).client("dynamodb")
    name = tables.settings.task_table_name
    assert client.describe_table(TableName=name)["Table"]["TableName"] == name
    proxy.weather = {}
    assert proxy.injected[Fault.SLOW] == 1


def test_a_held_request_is_carried_out_unanswered(tables: World, proxy: FaultProxy) -> None:
    name = tables.settings.task_table_name
    put = {"TableName": name, "Item": {"task_id": {"S": "held"}}}
    with proxy.holding("PutItem", "held", after=True) as held:
        with pytest.raises(StoreUnavailableError):
            impatient(proxy, 1.0).write({"Put": put})
        held.wait()
        assert stands(tables, "held"), "carried out but not answered"
