"""What `reconciler doctor` says of rights, outages and other services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.aws_errors import EXPLANATIONS
from reconciler.clock import utc_now
from reconciler.doctor import permissions
from reconciler.doctor.examine import examine
from reconciler.doctor.findings import Level
from reconciler.doctor.permissions import NEEDED, check_permissions
from reconciler.doctor.shapes import (
    wanted_tables,
)
from reconciler.errors import CredentialsError
from reconciler.tables import Table
from tests.integration.doctored import BY_INDEX, LIGHTER, RefusingSession, look, of, rebuilt
from tests.integration.test_policy import EVERYTHING, OTHER_SERVICES
from tests.support.aws_stub import aws_stub
from tests.support.faulty_endpoint import faulty_endpoint
from tests.support.world import EmulatorSession, World

pytestmark = pytest.mark.integration


@LIGHTER
def test_every_missing_permission_is_named(make_world: Callable[..., World]) -> None:
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
def test_rights_that_only_the_doctor_needs_are_optional(world: World) -> None:
    denied = "AccessDeniedException"
    name = world.settings.task_table_name
    found = look(world, {("DescribeTable", name): denied, ("DescribeTimeToLive", "*"): denied})
    assert of(Level.FAILURE, found) == []
    assert of(Level.WARNING, found).count(("tables", "TaskTable")) == 1
    assert "doctor-policy.json" in next(f for f in found if f.check == "tables").advice
    assert ("permissions", "TaskTable") in of(Level.OK, found)


def test_a_probe_that_writes_is_a_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint may ignore conditions; the row that is written is the probe's own."""
    monkeypatch.setattr(permissions, "_NEVER", "attribute_not_exists(#k)")
    monkeypatch.setattr(permissions, "NEEDED", {"TaskTable": ("DeleteItem",)})
    wanted = wanted_tables(world.settings)[1]
    (failed,) = check_permissions(world.client, replace(wanted, queried=()))
    assert failed.level is Level.FAILURE
    assert permissions.PROBE_KEY in failed.advice


@LIGHTER
def test_refused_credentials_are_the_only_failure(world: World) -> None:
    """So is an endpoint that does not answer."""
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
def test_an_outage_is_explained_and_examination_continues(world: World) -> None:
    """The tables can be described, but no row can be read or written."""
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
def test_a_failing_check_is_a_finding(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("reconciler.doctor.aws.wanted_tables", fails)
    (failed,) = (f for f in look(world) if f.level is Level.FAILURE)
    assert (failed.check, str(error) in failed.found) == ("credentials", True)
    assert failed.advice


@LIGHTER
def test_a_wrong_clock_is_reported(world: World) -> None:
    """The time of the service is in its ``Date`` header, which a refusal has too."""
    for ahead, level, said in (
        (20, Level.WARNING, "ahead of"),
        (-20, Level.WARNING, "behind"),
        (300, Level.FAILURE, "ahead of"),
        (-300, Level.FAILURE, "behind"),
    ):
        (found,) = (f for f in look(world, seconds_ahead=ahead) if f.check == "clock")
        assert (found.level, said in found.found) == (level, True)


@LIGHTER
def test_pipeline_and_guardrail_are_checked_without_an_invocation(
    make_world: Callable[..., World],
) -> None:
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
def test_a_failing_user_pool_is_explained(
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
def test_a_budget_table_of_another_shape_fails(make_world: Callable[..., World]) -> None:
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
def test_the_doctor_says_if_the_pipeline_takes_names(
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
def test_misspelled_settings_and_repos_are_reported(make_world: Callable[..., World]) -> None:
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
