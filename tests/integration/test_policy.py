"""The IAM policies grant exactly the calls that the code makes, on exactly its tables."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis

from reconciler.cli import status
from reconciler.inspection.find import find
from reconciler.inspection.look import look
from reconciler.observability.metrics import METRICS, known_series
from reconciler.repair import drafter as drafting
from reconciler.stores import control
from reconciler.sweeping.cron import run_cron_sweep
from reconciler.sweeping.inline import Hooks, evaluate_inline, run_inline_sweep
from tests.support.aws_stub import AwsStub, aws_stub
from tests.support.world import REPO, USER, EmulatorSession, World
from tests.unit.repair.test_releaser import whole

pytestmark = pytest.mark.integration

IAM = Path(__file__).parents[2] / "deploy" / "iam"
POLICY = IAM / "policy.json"
IN_TRANSACTION = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "ConditionCheck": "ConditionCheckItem",
    "Delete": "DeleteItem",
}
Made = dict[str, set[str]]
EVERYTHING = {
    "USER_CONCURRENCY_TABLE_NAME": "{prefix}-Users",
    "MAX_CONCURRENT_TASKS_PER_USER": "2",
    "REPO_TABLE_NAME": "{prefix}-Repo",
    "BUDGET_TABLE_NAME": "{prefix}-Budget",
    "USER_POOL_ID": "us-east-1_pool",
    "GUARDRAIL_ID": "g",
    "GUARDRAIL_VERSION": "1",
    "ORCHESTRATOR_FUNCTION_ARN": "arn:aws:lambda:us-east-1:123456789012:function:f:live",
}
OTHER_SERVICES = ("lambda", "bedrock-runtime", "cognito-idp")


@pytest.fixture
def aws() -> Iterator[AwsStub]:
    with aws_stub() as stub:
        stub.groups = {USER: ["growth"]}
        yield stub


def granted(world: World, policy: Path | None = None) -> Made:
    """Return resource → actions, as a policy grants them, with the names of this world.

    Rights on the index of active children are left out if the world has no such index.
    """
    s = world.settings
    names = {
        "ORCHESTRATION_TABLE_NAME": s.orchestration_table_name,
        "TASK_TABLE_NAME": s.task_table_name,
        "TASK_EVENTS_TABLE_NAME": s.task_events_table_name,
        "USER_CONCURRENCY_TABLE_NAME": str(s.user_concurrency_table_name),
        "REPO_TABLE_NAME": str(s.repo_table_name),
        "BUDGET_TABLE_NAME": str(s.budget_table_name),
    }
    found: Made = defaultdict(set)
    for statement in json.loads((policy or POLICY).read_text())["Statement"]:
        assert statement["Effect"] == "Allow"
        actions, resources = statement["Action"], statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            table, slash, index = resource.rpartition("table/")[2].partition("/")
            if index == "index/ACTIVE_INDEX_NAME":
                if s.active_index_name is None:
                    continue
                index = f"index/{s.active_index_name}"
            name = f"{names.get(table, table)}{slash}{index}"
            name = next((kind for kind in ("guardrail", "userpool") if f":{kind}/" in name), name)
            found[name] |= {actions} if isinstance(actions, str) else set(actions)
    return dict(found)


def record(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Record every call that any client makes from now on."""
    made: Made = defaultdict(set)
    whole = EmulatorSession.client

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        service, operation = model.service_model.service_name, model.name
        if service == "lambda":
            action = "InvokeFunction" if operation == "Invoke" else operation
            made["ORCHESTRATOR_FUNCTION_ARN"].add(f"lambda:{action}")
        elif service == "bedrock-runtime":
            made["guardrail"].add(f"bedrock:{operation}")
        elif service == "cognito-idp":
            made["userpool"].add(f"cognito-idp:{operation}")
        elif operation == "TransactWriteItems":
            for action in params["TransactItems"]:
                ((kind, request),) = action.items()
                made[request["TableName"]].add(f"dynamodb:{IN_TRANSACTION[kind]}")
        elif operation == "BatchGetItem":
            for table in params["RequestItems"]:
                made[table].add("dynamodb:BatchGetItem")
        else:
            index = f"/index/{params['IndexName']}" if "IndexName" in params else ""
            made[params["TableName"] + index].add(f"dynamodb:{operation}")

    def client(self: EmulatorSession, *args: Any, **kwargs: Any) -> Any:
        built = whole(self, *args, **kwargs)
        built.meta.events.register("provide-client-params.*.*", note)
        return built

    monkeypatch.setattr(EmulatorSession, "client", client)
    return made


def unrecorded(world: World) -> Any:
    """Return a client for what the test itself does."""
    session = boto3.Session("testing", "testing", region_name="us-east-1")
    return session.client("dynamodb", endpoint_url=world.endpoint)


def fail(*_: object, **__: object) -> None:
    raise KeyError("no such thing")


def use_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reconciler = world.reconciler()
    world.put(str(world.settings.repo_table_name), {"repo": {"S": REPO}, "status": {"S": "active"}})
    found = world.seed(
        {"a": [], "b": ["a"], "f": [], "g": ["f"], "q": []},
        {"a": "released", "f": "released", "q": "releasing"},
        tasks={"a": "COMPLETED", "f": "FAILED"},
        rows={"b": {"display_id": {"S": "ENG-1"}}},
    )
    world.task(found, "q", "RUNNING")
    world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"})
    run_cron_sweep(reconciler, holder="cron")
    reconciler.sweeps.recorded()
    waiting = world.seed({f"c{n}": [] for n in range(3)})
    # The first sweep of a rotation, which looks for lost recoveries.
    run_inline_sweep(world.reconciler(full_scan_interval_seconds=300), segments=1)
    reconciler.release(waiting, "c0", sweep_id="s", depends_on=())
    reconciler.pause("try", "me")
    reconciler.resume()
    look(reconciler, find(reconciler, "ENG-1", lambda _: None))
    (task,) = world.tasks(found, "a")
    find(reconciler, task["task_id"]["S"], lambda _: None)
    broken = world.seed({"a": []})
    with monkeypatch.context() as patched:
        patched.setattr(drafting, "draft_task", fail)
        evaluate_inline(reconciler, broken, hooks=Hooks())
    reconciler.evaluator.failures.forgive(whole(world, broken))
    again = run_cron_sweep(reconciler, holder="cron")
    assert again.summary.complete


@pytest.mark.parametrize("index", [None, "ChildStatusIndex"])
def test_the_policy_grants_exactly_what_is_called(
    make_world: Callable[..., World],
    monkeypatch: pytest.MonkeyPatch,
    aws: AwsStub,
    index: str | None,
) -> None:
    made = record(monkeypatch)
    world = make_world(**EVERYTHING, **({} if index is None else {"ACTIVE_INDEX_NAME": index}))
    world.others = dict.fromkeys(OTHER_SERVICES, aws.url)
    made.clear()
    world.client = unrecorded(world)
    use_everything(world, monkeypatch)
    assert dict(made) == granted(world)
    if index is not None:
        on_it = f"{world.settings.orchestration_table_name}/index/{index}"
        assert made[on_it] == {"dynamodb:Query"}
    # The same run counts every declared series of capacity units, and no other.
    units = METRICS["reconciler_dynamodb_units_total"]
    counted = {labels for name, labels in world.metrics.counters if name == units.name}
    known = set(known_series(units, world.settings))
    assert counted <= known
    # Only one of the two endpoints says what transactions consume.
    assert {dict(labels)["operation"] for labels in known - counted} <= {"transact_write_items"}


def test_inspecting_needs_no_right_to_write(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, broker: str, aws: AwsStub
) -> None:
    """This covers `status`, `health`, and `inspect` with every kind of name."""
    made = record(monkeypatch)
    world = make_world(**EVERYTHING)
    world.others = dict.fromkeys(OTHER_SERVICES, aws.url)
    world.client = unrecorded(world)
    world.put(str(world.settings.repo_table_name), {"repo": {"S": REPO}, "status": {"S": "active"}})
    found = world.seed(
        {"a": [], "b": ["a"], "q": []},
        {"a": "released", "q": "releasing"},
        tasks={"a": "COMPLETED"},
        rows={"b": {"display_id": {"S": "ENG-1"}}},
    )
    world.task(found, "q", "RUNNING")
    (task,) = world.tasks(found, "a")
    before = world.everything()
    made.clear()
    with monkeypatch.context() as patched:
        patched.setattr(status, "_workers", lambda *_: None)  # it asks only the broker
        reconciler = world.reconciler()
        for name in (found, "ENG-1", "b", task["task_id"]["S"]):
            look(reconciler, find(reconciler, name, lambda _: None))
        status.read_status(world.settings, redis.Redis.from_url(broker), reconciler, details=True)
    assert dict(made) == granted(world, IAM / "look-policy.json")
    assert not {action for actions in made.values() for action in actions} & {
        f"dynamodb:{name}" for name in IN_TRANSACTION.values()
    }
    assert world.everything() == before


def test_the_health_check_reads_two_rows(
    world: World, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    """Beat needs no other rows: the pause switch, and a task that does not exist."""
    made = record(monkeypatch)
    client = redis.Redis.from_url(broker)
    status.read_status(world.settings, client, world.reconciler(), details=False)
    assert dict(made) == granted(world, IAM / "health-policy.json")
    statements = json.loads((IAM / "health-policy.json").read_text())["Statement"]
    keys = [next(iter(found["Condition"].values())) for found in statements]
    assert keys == [
        {"dynamodb:LeadingKeys": [control.PARTITION]},
        {"dynamodb:LeadingKeys": [status._PROBE_TASK]},
    ]
