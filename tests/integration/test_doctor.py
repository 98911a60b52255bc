"""The doctor: each thing that can be wrong is found, named, and nothing is written on the way."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis
from botocore.awsrequest import AWSResponse, HTTPHeaders

from reconciler.aws_errors import EXPLANATIONS
from reconciler.clock import utc_now
from reconciler.doctor import permissions
from reconciler.doctor.broker import examine_broker
from reconciler.doctor.examine import examine
from reconciler.doctor.findings import Finding, Level
from reconciler.doctor.permissions import NEEDED, check_permissions
from reconciler.doctor.shapes import (
    MANY_ROWS,
    Wanted,
    check_shape,
    mention_an_index,
    wanted_tables,
)
from reconciler.embedded.valkey import valkey_server
from reconciler.errors import CredentialsError
from reconciler.settings import Settings
from reconciler.stores.rows import ACTIVE_ATTRIBUTES
from reconciler.sweeping.cron import run_cron_sweep
from reconciler.tables import ORCHESTRATION, TASK, Index, Table, _create
from tests.integration import test_policy
from tests.integration.test_policy import EVERYTHING, OTHER_SERVICES
from tests.support.aws_stub import aws_stub
from tests.support.faulty_endpoint import faulty_endpoint
from tests.support.world import EmulatorSession, World

pytestmark = pytest.mark.integration

LIGHTER = pytest.mark.parametrize("endpoint", ["moto"], indirect=True)
"""For what is refused before it is sent, or asked of something else."""

INDEX = "ChildStatusIndex"
BY_INDEX = {"ACTIVE_INDEX_NAME": INDEX}
DOCTOR_POLICY = Path(__file__).parents[2] / "deploy" / "iam" / "doctor-policy.json"


class RefusingSession(EmulatorSession):
    """An emulator that refuses some operations: (operation, table or index) → error code."""

    def __init__(self, world: World, refused: Mapping[tuple[str, str], str]) -> None:
        super().__init__(world.endpoint, world.others)
        self._refused = refused

    def client(self, service_name: Any, *args: Any, **kwargs: Any) -> Any:
        client = super().client(service_name, *args, **kwargs)
        client.meta.events.register("before-send.dynamodb", self._send)
        return client

    def _send(self, request: Any, **_: Any) -> AWSResponse | None:
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        said = json.loads(request.body)
        (first,) = said.get("TransactItems", [{}])
        table = (
            said.get("TableName")
            or next(iter(said.get("RequestItems", [])), None)
            or first["ConditionCheck"]["TableName"]
        )
        where = f"{table}/{said['IndexName']}" if "IndexName" in said else table
        code = self._refused.get((operation, where)) or self._refused.get((operation, "*"))
        if code is None:
            return None

        class Raw(io.BytesIO):
            def stream(self, **_: Any) -> Iterable[bytes]:
                yield self.read()

        body = json.dumps({"__type": f"com.amazon#{code}", "message": "not you"}).encode()
        return AWSResponse(request.url, 400, HTTPHeaders(), Raw(body))


def look(
    world: World,
    refused: Mapping[tuple[str, str], str] | None = None,
    *,
    seconds_ahead: float = 0.0,
    environ: Mapping[str, str] | None = None,
    **changes: Any,
) -> list[Finding]:
    """Look at everything but the broker, and see that nothing was written."""
    settings = world.settings.model_copy(update=changes)
    before = world.everything()
    found = list(
        examine(
            settings,
            environ or {},
            RefusingSession(world, refused or {}),
            lambda: utc_now() + timedelta(seconds=seconds_ahead),
            inline=True,
        )
    )
    assert world.everything() == before
    return found


def of(level: Level, findings: Iterable[Finding]) -> list[tuple[str, str]]:
    assert all(finding.advice for finding in findings if finding.level is not Level.OK)
    return [(f.check, f.subject) for f in findings if f.level is level]


def rebuilt(world: World, which: str, table: Table, number: int = 0) -> dict[str, Any]:
    """Make a table of another shape; returns the setting that names it."""
    name = f"{getattr(world.settings, which)}-other{number}"
    _create(world.client, name, table)
    return {which: name}


@pytest.mark.parametrize("more", [{}, BY_INDEX], ids=["by scan", "by index"])
def test_where_all_is_well_nothing_fails(
    make_world: Callable[..., World], more: dict[str, str]
) -> None:
    with aws_stub() as aws:
        world = make_world(**EVERYTHING, **more)
        world.others = dict.fromkeys(OTHER_SERVICES, aws.url)
        world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})
        reconciler = world.reconciler()
        run_cron_sweep(reconciler, holder="cron", segments=1)
        invoked = list(aws.invoked)
        found = look(world)
    assert {finding.level for finding in found} == {Level.OK}
    titles = [w.title for w in wanted_tables(world.settings)]
    assert len(titles) == 6
    for check in ("tables", "permissions"):
        assert [f.subject for f in found if f.check == check] == titles
        of_the_index = [f for f in found if f.check == check and INDEX in f.found]
        assert len(of_the_index) == len(more), check
    assert aws.invoked == invoked


@LIGHTER
def test_a_table_that_is_missing(world: World) -> None:
    found = look(world, task_table_name="nowhere")
    assert of(Level.FAILURE, found) == [("tables", "TaskTable")]
    (failed,) = (f for f in found if f.level is Level.FAILURE)
    assert "nowhere" in failed.found
    assert "TASK_TABLE_NAME" in failed.advice


@LIGHTER
def test_tables_that_were_mixed_up(world: World) -> None:
    s = world.settings
    found = look(world, task_table_name=s.task_events_table_name)
    assert ("tables", "TaskTable") in of(Level.FAILURE, found)
    assert any("task_id + event_id" in f.found for f in found)


SHAPES: list[tuple[str, Table, Level, str]] = [
    (
        "orchestration_table_name",
        replace(ORCHESTRATION, indexes=ORCHESTRATION.indexes[1:]),
        Level.FAILURE,
        "ChildTaskIndex is missing",
    ),
    (
        "orchestration_table_name",
        replace(ORCHESTRATION, indexes=ORCHESTRATION.indexes[:1]),
        Level.WARNING,
        "ChildBranchIndex is missing",
    ),
    (
        "task_table_name",
        replace(TASK, indexes=(Index("IdempotencyIndex", ("user_id",)), *TASK.indexes[3:])),
        Level.FAILURE,
        "IdempotencyIndex has the key user_id",
    ),
    (
        "orchestration_table_name",
        replace(
            ORCHESTRATION,
            indexes=(
                ORCHESTRATION.indexes[0],
                replace(ORCHESTRATION.indexes[1], projection="KEYS_ONLY"),
            ),
        ),
        Level.WARNING,
        "ChildBranchIndex projects KEYS_ONLY",
    ),
    ("task_table_name", replace(TASK, stream=False), Level.FAILURE, "no stream"),
    (
        "orchestration_table_name",
        replace(ORCHESTRATION, ttl=False),
        Level.WARNING,
        "time to live is off",
    ),
]


def test_a_table_of_another_shape(world: World) -> None:
    for number, (which, table, level, said) in enumerate(SHAPES):
        found = look(world, **rebuilt(world, which, table, number))
        assert any(f.level is level and said in f.found for f in found), (said, found)
        # Its permissions are there all the same, but for an index that is not.
        denied = [f for f in found if f.check == "permissions" and f.level is not Level.OK]
        assert all("ndex" in f.found for f in denied)


# -- the index that a sweep goes by

KEYS = ("child_status", "orchestration_id")


@LIGHTER
@pytest.mark.parametrize(
    ("index", "said"),
    [
        (None, [f"has no index {INDEX}"]),
        (Index(INDEX, KEYS[::-1]), ["has the key orchestration_id + child_status"]),
        (Index(INDEX, KEYS[:1]), ["has the key child_status, and"]),
        (
            Index(INDEX, KEYS, "KEYS_ONLY"),
            ["does not project child_task_id, depends_on, updated_at"],
        ),
        (
            Index(INDEX, KEYS, "INCLUDE", ("depends_on", "title")),
            ["does not project child_task_id, updated_at"],
        ),
        (
            Index(INDEX, ("child_status", "updated_at"), "INCLUDE", ("child_task_id",)),
            ["has the key child_status + updated_at", "does not project depends_on"],
        ),
    ],
)
def test_an_index_that_a_sweep_cannot_go_by(
    world: World, index: Index | None, said: list[str]
) -> None:
    more = () if index is None else (index,)
    table = replace(ORCHESTRATION, indexes=(*ORCHESTRATION.indexes, *more))
    found = look(
        world, **rebuilt(world, "orchestration_table_name", table), active_index_name=INDEX
    )
    failed = [f for f in found if f.level is Level.FAILURE and f.check == "tables"]
    assert len(failed) == len(said)
    for finding, words in zip(failed, said, strict=True):
        assert words in finding.found
        assert "docs/deploying.md" in finding.advice
        assert "ACTIVE_INDEX_NAME" in finding.advice
    # A query of one that is not there fails, whoever may query it: that advice is of the index too.
    tried = [f for f in found if f.check == "permissions" and f.level is Level.FAILURE]
    assert all(INDEX in f.found and "ACTIVE_INDEX_NAME" in f.advice for f in tried)
    assert tried or index is not None


@pytest.mark.parametrize(
    "index", [Index(INDEX, KEYS), Index(INDEX, KEYS, "INCLUDE", (*ACTIVE_ATTRIBUTES[3:], "title"))]
)
def test_an_index_that_projects_more_does_as_well(world: World, index: Index) -> None:
    table = replace(ORCHESTRATION, indexes=(*ORCHESTRATION.indexes, index))
    found = look(
        world, **rebuilt(world, "orchestration_table_name", table), active_index_name=INDEX
    )
    assert of(Level.FAILURE, found) == []


@LIGHTER
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"IndexStatus": "CREATING", "Backfilling": False}, "is CREATING"),
        ({"IndexStatus": "CREATING", "Backfilling": True}, "is CREATING, and is still being fill"),
        ({"IndexStatus": "DELETING"}, "is DELETING"),
        ({"IndexStatus": "UPDATING"}, None),
        ({"IndexStatus": "ACTIVE", "Backfilling": False}, None),
    ],
)
def test_an_index_that_does_not_answer_yet(
    make_world: Callable[..., World], changes: dict[str, Any], said: str | None
) -> None:
    """As DynamoDB describes it; an emulator's index is ready at once."""
    wanted, described = by_index(make_world)
    *others, index = described["GlobalSecondaryIndexes"]
    described["GlobalSecondaryIndexes"] = [*others, {**index, **changes}]
    failed = [f for f in check_shape(wanted, described, None) if f.level is not Level.OK]
    assert [said in f.found for f in failed if said] == ([True] if said else [])
    assert all("unset ACTIVE_INDEX_NAME until it is ACTIVE" in f.advice for f in failed)


@LIGHTER
def test_an_index_whose_key_is_not_a_string(make_world: Callable[..., World]) -> None:
    wanted, described = by_index(make_world)
    for attribute in described["AttributeDefinitions"]:
        if attribute["AttributeName"] == "child_status":
            attribute["AttributeType"] = "N"
    (failed,) = check_shape(wanted, described, None)
    assert "child_status of type N" in failed.found


def by_index(make_world: Callable[..., World]) -> tuple[Wanted, dict[str, Any]]:
    world = make_world(**BY_INDEX)
    wanted = wanted_tables(world.settings)[0]
    table: Any = world.client.describe_table(TableName=wanted.name)["Table"]
    assert table["GlobalSecondaryIndexes"][-1]["IndexName"] == INDEX
    return wanted, table


def test_a_large_table_without_an_index_is_told_that_there_can_be_one() -> None:
    without, tasks, *_ = wanted_tables(SETTINGS)
    with_one = wanted_tables(SETTINGS.model_copy(update={"active_index_name": INDEX}))[0]
    many = {"ItemCount": MANY_ROWS + 1}
    (found,) = mention_an_index(without, many)
    assert found.level is Level.OK
    assert "5,000,001 rows" in found.found
    assert "ACTIVE_INDEX_NAME" in found.found
    for wanted, described in ((with_one, many), (tasks, many), (without, {"ItemCount": MANY_ROWS})):
        assert list(mention_an_index(wanted, described)) == []


def test_a_time_to_live_that_goes_by_another_attribute(world: World) -> None:
    changed = rebuilt(world, "orchestration_table_name", replace(ORCHESTRATION, ttl=False))
    world.client.update_time_to_live(
        TableName=changed["orchestration_table_name"],
        TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"},
    )
    assert any("expires" in f.found for f in look(world, **changed) if f.level is Level.WARNING)


def test_a_stream_without_new_images(world: World) -> None:
    changed = rebuilt(world, "task_table_name", replace(TASK, stream=False))
    world.client.update_table(
        TableName=changed["task_table_name"],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
    )
    assert any("KEYS_ONLY" in f.found for f in look(world, **changed) if f.level is Level.FAILURE)


@LIGHTER
def test_every_permission_is_tried_by_itself(make_world: Callable[..., World]) -> None:
    world = make_world(**EVERYTHING, **BY_INDEX)
    refused: dict[tuple[str, str], str] = {}
    client = RefusingSession(world, refused).client("dynamodb")
    for wanted in wanted_tables(world.settings):
        cases = [(action, wanted.name) for action in NEEDED[wanted.title]]
        cases += [("Query", f"{wanted.name}/{index}") for index in wanted.queried]
        for action, where in cases:
            operation = "TransactWriteItems" if action == "ConditionCheckItem" else action
            refused.clear()
            refused[operation, where] = "AccessDeniedException"
            found = list(check_permissions(client, wanted))
            assert of(Level.FAILURE, found) == [("permissions", wanted.title)]
            (failed,) = (f for f in found if f.level is Level.FAILURE)
            assert f"may not {action}" in failed.found
            assert f"dynamodb:{action}," in failed.advice


@LIGHTER
def test_what_only_the_doctor_may_not_do_is_no_failure(world: World) -> None:
    denied = "AccessDeniedException"
    name = world.settings.task_table_name
    found = look(world, {("DescribeTable", name): denied, ("DescribeTimeToLive", "*"): denied})
    assert of(Level.FAILURE, found) == []
    assert of(Level.WARNING, found).count(("tables", "TaskTable")) == 1
    assert "doctor-policy.json" in next(f for f in found if f.check == "tables").advice
    assert ("permissions", "TaskTable") in of(Level.OK, found)


def test_a_write_that_should_never_happen_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an endpoint that does not keep conditions: the row is the probe's own."""
    monkeypatch.setattr(permissions, "_NEVER", "attribute_not_exists(#k)")
    monkeypatch.setattr(permissions, "NEEDED", {"TaskTable": ("DeleteItem",)})
    wanted = wanted_tables(world.settings)[1]
    (failed,) = check_permissions(world.client, replace(wanted, queried=()))
    assert failed.level is Level.FAILURE
    assert permissions.PROBE_KEY in failed.advice


@LIGHTER
def test_credentials_that_are_refused_and_an_endpoint_that_does_not_answer(world: World) -> None:
    for code in (
        "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException"
    ):  # fmt: skip
        found = look(world, {("DescribeTable", "*"): code})
        assert of(Level.FAILURE, found) == [("credentials", "AWS")]
        assert [f for f in found if f.check in {"tables", "permissions"}] == []
    session = EmulatorSession("http://127.0.0.1:9")
    found = list(examine(world.settings, {}, session, utc_now, inline=True))
    assert of(Level.FAILURE, found) == [("credentials", "AWS")]


@LIGHTER
def test_each_outage_is_explained_and_the_rest_is_looked_at(world: World) -> None:
    """Tables can be described, and nothing in them can be read or written."""
    rejected = (400, "ValidationException")
    index = "The table does not have the specified index: IdempotencyIndex"
    for kind, answer, message in (
        ("credentials", (400, "ExpiredTokenException"), "no"),
        ("index_unavailable", rejected, index),
        ("encryption_key", rejected, "KMS key access denied"),
        ("account_limit", (400, "LimitExceededException"), "no"),
        ("access", (400, "AccessDeniedException"), "no"),
        ("unknown_refusal", (400, "SomethingNewException"), "no"),
    ):
        with faulty_endpoint(world.endpoint) as service:
            for operation in ("GetItem", "BatchGetItem", "Query", "Scan", "TransactWriteItems"):
                service.fail(answer, operation, message=message)
            session = EmulatorSession(service.url)
            found = list(examine(world.settings, {}, session, utc_now, inline=True))
        failed = [f for f in found if f.level is Level.FAILURE and f.check == "permissions"]
        assert {f.subject for f in failed} >= {"OrchestrationTable", "TaskTable"}, kind
        assert all(EXPLANATIONS[kind].meaning in f.found for f in failed), kind
        assert "pipeline" in {f.check for f in found}, kind


@LIGHTER
@pytest.mark.parametrize("error", [RuntimeError("odd"), KeyError("odd"), CredentialsError("gone")])
def test_whatever_fails_while_it_looks_is_a_finding(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("reconciler.doctor.aws.wanted_tables", fails)
    (failed,) = (f for f in look(world) if f.level is Level.FAILURE)
    assert (failed.check, str(error) in failed.found) == ("credentials", True)
    assert failed.advice


@LIGHTER
def test_a_clock_that_is_wrong(world: World) -> None:
    """Asked of the service by its ``Date``, which a refusal has too."""
    for ahead, level, said in (
        (20, Level.WARNING, "ahead of"),
        (-20, Level.WARNING, "behind"),
        (300, Level.FAILURE, "ahead of"),
        (-300, Level.FAILURE, "behind"),
    ):
        (found,) = (f for f in look(world, seconds_ahead=ahead) if f.check == "clock")
        assert (found.level, said in found.found) == (level, True)


@LIGHTER
def test_pipeline_and_guardrail(make_world: Callable[..., World]) -> None:
    with aws_stub() as aws:
        world = make_world(**EVERYTHING)
        world.others = dict.fromkeys(OTHER_SERVICES, aws.url)
        aws.guardrail_action = "GUARDRAIL_INTERVENED"
        assert ("guardrail", "Bedrock") in of(Level.WARNING, look(world))
        aws.invoke_status, aws.guardrail_status = 403, 403
        failed = of(Level.FAILURE, look(world))
    assert failed == [("pipeline", "Lambda"), ("guardrail", "Bedrock")]
    assert aws.invoked == []


@LIGHTER
@pytest.mark.parametrize(
    ("error", "said", "advice"),
    [
        ("AccessDeniedException", "AccessDenied", "cognito-idp:AdminListGroupsForUser"),
        ("ResourceNotFoundException", "ResourceNotFound", "correct USER_POOL_ID"),
        ("TooManyRequestsException", "for want of capacity", "capacity"),
        ("InternalErrorException", "InternalError", "or wait"),
    ],
)
def test_a_user_pool_that_does_not_answer(
    make_world: Callable[..., World], error: str, said: str, advice: str
) -> None:
    with aws_stub() as aws:
        world = make_world(BUDGET_TABLE_NAME="{prefix}-Budget", USER_POOL_ID="us-east-1_pool")
        world.others = {"cognito-idp": aws.url}
        (found,) = (f for f in look(world) if f.check == "teams")
        assert found.level is Level.OK
        aws.groups_error = error
        (found,) = (f for f in look(world) if f.check == "teams")
    assert (found.level, found.subject) == (Level.FAILURE, "Cognito")
    assert said in found.found
    assert advice in found.advice


@LIGHTER
def test_a_budget_table_of_another_shape(make_world: Callable[..., World]) -> None:
    with aws_stub() as aws:
        world = make_world(BUDGET_TABLE_NAME="{prefix}-Budget", USER_POOL_ID="us-east-1_pool")
        world.others = {"cognito-idp": aws.url}
        changed = rebuilt(world, "budget_table_name", Table(keys=("scope_key",)))
        found = look(world, **changed)
    assert of(Level.FAILURE, found) == [("tables", "BudgetTable")]
    assert any("scope_key + period was expected" in f.found for f in found)


@LIGHTER
@pytest.mark.parametrize(
    ("durable", "status", "arn", "said"),
    [
        (True, 200, "f:live", "f:live (a dry run); it is durable"),
        (True, 200, "f", "without an alias it takes no names"),
        (False, 200, "f:live", "not durable, it takes no names"),
        (True, 403, "f:live", "whether it is a durable function cannot be looked at"),
    ],
)
def test_whether_the_pipeline_takes_names(
    make_world: Callable[..., World], *, durable: bool, status: int, arn: str, said: str
) -> None:
    with aws_stub() as aws:
        aws.durable, aws.configuration_status = durable, status
        world = make_world(**EVERYTHING)
        world.others = dict.fromkeys(OTHER_SERVICES, aws.url)
        whole = f"arn:aws:lambda:us-east-1:123456789012:function:{arn}"
        found = look(world, orchestrator_function_arn=whole)
    (pipeline,) = (f for f in found if f.check == "pipeline")
    assert said in pipeline.found
    assert (pipeline.level is Level.OK) is (not pipeline.advice) is said.endswith("it is durable")
    assert aws.invoked == []


@LIGHTER
def test_slips_and_the_roll_out(make_world: Callable[..., World]) -> None:
    named = "acme/shop, acme/odd, acme"
    world = make_world(REPAIR_ONLY_REPOS=named, REPO_TABLE_NAME="{prefix}-Repo")
    repos, active = str(world.settings.repo_table_name), {"status": {"S": "active"}}
    world.put(repos, {"repo": {"S": "acme/shop"}, **active})
    world.put(repos, {"repo": {"S": "acme/odd"}, **active, "approval_gate_cap": {"N": "0"}})
    world.reconciler().pause("migration", "ann")
    found = look(world, environ={"STRANDED_GRACE_SECOND": "5", "HOME": "/", "CLAIM_TIMEOUT": "1"})
    warned = of(Level.WARNING, found)
    assert ("settings", "STRANDED_GRACE_SECOND") in warned
    assert ("settings", "REPAIR_ONLY_REPOS") in warned
    assert ("roll-out", "acme") in warned
    assert ("roll-out", "acme/odd") in warned
    assert ("roll-out", "acme/shop") not in warned
    assert any("migration" in f.found for f in found if f.subject == "pause")


# -- the broker


SETTINGS = Settings(
    orchestration_table_name="orchestrations",
    task_table_name="tasks",
    task_events_table_name="events",
)


def ask(settings: Settings, seconds_ahead: float = 0.0, **changes: Any) -> dict[str, Finding]:
    def clock() -> Any:
        return utc_now() + timedelta(seconds=seconds_ahead)

    found = examine_broker(settings.model_copy(update=changes), clock)
    return {finding.subject: finding for finding in found}


def test_a_broker_that_keeps_what_it_is_given(broker: str) -> None:
    urls: dict[str, Any] = {
        "celery_broker_url": f"{broker}/0",
        "celery_result_backend": f"{broker}/1",
    }
    found = ask(SETTINGS, **urls)
    assert {f.level for f in found.values()} == {Level.OK}
    assert set(found) == {
        "server", "writes", "eviction", "persistence", "transport", "results", "the broker"
    }  # fmt: skip
    assert ask(SETTINGS, 300, **urls)["the broker"].level is Level.FAILURE


def test_a_broker_that_evicts_and_forgets_and_wants_a_password(tmp_path: Path) -> None:
    with valkey_server(tmp_path, durable=False) as url:
        client = redis.Redis.from_url(url)
        client.config_set("maxmemory-policy", "allkeys-lru")
        here: dict[str, Any] = {
            "celery_broker_url": f"{url}/0",
            "celery_result_backend": f"{url}/1",
        }
        found = ask(SETTINGS, **here)
        assert found["eviction"].level is Level.FAILURE
        assert "noeviction" in found["eviction"].advice
        assert found["persistence"].level is Level.WARNING
        client.config_set("requirepass", "not-this-one")
        refused = ask(SETTINGS, **here)["reachable"]
        assert refused.level is Level.FAILURE
        assert "NOAUTH" in refused.found
        assert "BROKER_PASSWORD" in refused.advice
        host = url.removeprefix("redis://")
        wrong = ask(SETTINGS, celery_broker_url=f"redis://ann:hunter2@{host}/0")["reachable"]
        assert "WRONGPASS" in wrong.found
        assert "hunter2" not in repr(wrong)


def test_a_broker_that_may_not_be_asked_is_no_failure(tmp_path: Path) -> None:
    """Its user needs no more than the work does."""
    with valkey_server(tmp_path) as url:
        rights = ("+@all", "-info", "-time", "-config|get")
        admin: Any = redis.Redis.from_url(url)
        admin.execute_command("ACL", "SETUSER", "narrow", "on", ">word", "~*", "&*", *rights)
        narrow = url.replace("redis://", "redis://narrow:word@")
        found = ask(SETTINGS, celery_broker_url=f"{narrow}/0", celery_result_backend=f"{narrow}/1")
    assert found["server"].level is Level.OK
    assert [f.subject for f in found.values() if f.level is not Level.OK] == ["eviction"]
    assert "word@" not in repr(found)


def test_a_broker_that_is_not_there() -> None:
    nowhere = "redis://127.0.0.1:9/0"
    assert ask(SETTINGS, celery_broker_url=nowhere)["reachable"].level is Level.FAILURE
    assert ask(SETTINGS, celery_broker_url="http://x")["URL"].level is Level.FAILURE
    values = {**SETTINGS.model_dump(), "celery_broker_url": nowhere}
    silent = Settings.model_construct({"task_table_name"}, **values)
    # It was never asked for: that is how cron mode is.
    assert ask(silent)["reachable"].level is Level.WARNING


# -- what the doctor itself needs


def granted(policy: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    monkeypatch.setattr(test_policy, "POLICY", policy)
    return test_policy.granted(world)


@LIGHTER
@pytest.mark.parametrize("more", [{}, BY_INDEX], ids=["by scan", "by index"])
def test_it_asks_for_all_that_is_granted_and_needs_what_its_own_policy_adds(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, more: dict[str, str]
) -> None:
    with aws_stub() as aws:
        world = make_world(**EVERYTHING, **more)
        world.others = dict.fromkeys(OTHER_SERVICES, aws.url)
        world.client = boto3.Session("testing", "testing", region_name="us-east-1").client(
            "dynamodb", endpoint_url=world.endpoint
        )
        made = test_policy.record(monkeypatch)
        look(world)
    ours = granted(test_policy.POLICY, world, monkeypatch)
    added = granted(DOCTOR_POLICY, world, monkeypatch)
    both: dict[str, set[str]] = defaultdict(set)
    for policy in (ours, added):
        for resource, actions in policy.items():
            assert not actions & both[resource]
            both[resource] |= actions
    assert dict(made) == dict(both)
