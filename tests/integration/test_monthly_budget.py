"""Monthly budgets: whose budget stops a release, and what an outage does not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from reconciler import composition as wiring
from reconciler.domain.monthly_budget import month_of
from reconciler.errors import BudgetUnavailableError
from reconciler.stores import monthly_budget
from reconciler.sweeping.inline import run_inline_sweep
from reconciler.sweeping.summary import SweepSummary
from tests.support.aws_stub import AwsStub, aws_stub
from tests.support.faulty_endpoint import BROKEN, THROTTLED, faulty_endpoint
from tests.support.world import CREDENTIALS, USER, World

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try every request only once, and never wait."""
    monkeypatch.setattr(wiring, "_ATTEMPTS", 1)
    monkeypatch.setattr(wiring, "_ATTEMPTS_ELSEWHERE", 1)
    monkeypatch.setattr("reconciler.stores.dynamodb._MAX_PAUSE_SECONDS", 0.01)


@pytest.fixture
def aws() -> Iterator[AwsStub]:
    with aws_stub() as stub:
        stub.groups = {USER: []}
        yield stub


@pytest.fixture
def budgeted(make_world: Callable[..., World], aws: AwsStub) -> World:
    """A world with monthly budgets."""
    world = make_world(BUDGET_TABLE_NAME="{prefix}-Budget", USER_POOL_ID="us-east-1_pool")
    world.others = {"cognito-idp": aws.url}
    return world


def sweep(world: World) -> SweepSummary:
    reconciler = world.reconciler()
    return run_inline_sweep(reconciler, segments=1)


def test_a_task_names_the_teams_of_its_user(budgeted: World, aws: AwsStub) -> None:
    """130 memberships in three pages; each name once, sorted, whether it has a budget or not."""
    teams = [f"team-{number:03}" for number in range(90)]
    aws.groups[USER] = [*reversed(teams), *teams[:40]]
    budgeted.budget("TEAM#team-007", "100", "99.99")
    found = budgeted.seed({"a": []})
    assert sweep(budgeted).counts.released == 1
    (task,) = budgeted.tasks(found)
    assert task["team_ids"] == {"L": [{"S": team} for team in teams]}
    assert [asked.get("NextToken") for asked in aws.groups_asked] == [None, "60", "120"]
    assert {asked["Username"] for asked in aws.groups_asked} == {USER}
    assert {asked["UserPoolId"] for asked in aws.groups_asked} == {"us-east-1_pool"}


def test_without_teams_a_task_names_none(budgeted: World) -> None:
    found = budgeted.seed({"a": []})
    assert sweep(budgeted).counts.released == 1
    (task,) = budgeted.tasks(found)
    assert "team_ids" not in task


@pytest.mark.parametrize(
    ("scope_key", "whose"), [(f"USER#{USER}", f"user {USER}"), ("TEAM#growth", "team growth")]
)
def test_an_exhausted_budget_refuses_the_child(
    budgeted: World, aws: AwsStub, scope_key: str, whose: str
) -> None:
    aws.groups[USER] = ["growth", "ops"]
    budgeted.budget("TEAM#ops", "1000", "1")
    budgeted.budget(scope_key, "25.5", "25.50")
    found = budgeted.seed({"a": [], "b": ["a"]})
    summary = sweep(budgeted)
    assert summary.counts.refused == 1
    assert budgeted.statuses(found) == {"a": "failed", "b": "skipped"}
    reason = budgeted.rows(found)["a"]["failure_reason"]["S"]
    month = month_of(budgeted.clock())
    assert reason.startswith(f"The monthly budget for {month} is exhausted: {whose} (25.5")
    assert reason.endswith("then retry this sub-issue.")
    assert not budgeted.tasks(found)


def test_only_a_hard_stop_of_this_month_counts(budgeted: World, aws: AwsStub) -> None:
    aws.groups[USER] = ["soft", "without-config"]
    budgeted.budget(f"USER#{USER}", "10", "500", period="2020-01")
    budgeted.budget("TEAM#soft", "10", "500", hard_stop=False)
    budgeted.budget("TEAM#not-theirs", "10", "500")
    budgeted.seed({"a": []})
    assert sweep(budgeted).counts.released == 1


def test_the_next_month_has_a_new_budget(budgeted: World) -> None:
    budgeted.budget(f"USER#{USER}", "10", "10")
    first = budgeted.seed({"a": []})
    assert sweep(budgeted).counts.refused == 1
    budgeted.clock.forward(31 * 86_400)
    second = budgeted.seed({"a": []})
    assert sweep(budgeted).counts.released == 1
    assert budgeted.statuses(first) | {"second": budgeted.statuses(second)["a"]} == {
        "a": "failed", "second": "released"
    }  # fmt: skip


@pytest.mark.parametrize("state", ["exhausted", "away"])
def test_an_existing_task_is_adopted_anyway(budgeted: World, aws: AwsStub, state: str) -> None:
    """A sibling that has to wait for the budget does not prevent it."""
    if state == "exhausted":
        budgeted.budget(f"USER#{USER}", "10", "10")
    else:
        aws.groups_error = "InternalErrorException"
    found = budgeted.seed({"a": [], "b": []})
    task_id = budgeted.task(found, "b", "RUNNING")
    assert sweep(budgeted).counts.adopted == 1
    row = budgeted.rows(found)["b"]
    assert (row["child_status"], row["child_task_id"]) == ({"S": "released"}, {"S": task_id})
    expected = "failed" if state == "exhausted" else "blocked"
    assert budgeted.statuses(found)["a"] == expected


@pytest.mark.parametrize(
    "code",
    [
        "InternalErrorException",
        "TooManyRequestsException",
        "AccessDeniedException",
        "ResourceNotFoundException",
        "UserNotFoundException",
    ],
)
def test_a_cognito_error_releases_nothing(budgeted: World, aws: AwsStub, code: str) -> None:
    """It changes nothing, backs off nothing, and ends with the outage."""
    aws.groups_error = code
    found = budgeted.seed({"a": [], "b": ["a"]})
    before = budgeted.everything()
    for _ in range(5):
        summary = sweep(budgeted)
        assert (summary.counts.errors, summary.counts.stuck) == (1, {"lost_release": 1})
    assert budgeted.everything() == before
    kind = "budget_unusable" if code == "UserNotFoundException" else "budget_unavailable"
    assert budgeted.metrics.count("reconciler_errors_total", kind=kind) == 5
    with pytest.raises(BudgetUnavailableError, match=code):
        budgeted.reconciler().release(found, "a")
    aws.groups_error = None
    assert sweep(budgeted).counts.released == 1


def test_a_malformed_budget_releases_nothing_until_corrected(budgeted: World, aws: AwsStub) -> None:
    aws.groups[USER] = ["growth"]
    budgeted.budget("TEAM#growth", "0")
    found = budgeted.seed({"a": []})
    before = budgeted.everything()
    for _ in range(4):
        assert sweep(budgeted).counts.errors == 1
    assert budgeted.everything() == before
    with pytest.raises(BudgetUnavailableError, match="monthly_limit_usd of TEAM#growth"):
        budgeted.reconciler().release(found, "a")
    budgeted.budget("TEAM#growth", "5")
    assert sweep(budgeted).counts.released == 1


@pytest.mark.parametrize("answer", [THROTTLED, BROKEN])
def test_a_budget_table_outage_releases_nothing(budgeted: World, answer: tuple[int, str]) -> None:
    found = budgeted.seed({"a": []})
    before = budgeted.everything()
    with faulty_endpoint(budgeted.endpoint) as service:
        behind, budgeted.endpoint = budgeted.endpoint, service.url
        service.fail(answer, "BatchGetItem", budgeted.settings.budget_table_name)
        summary = sweep(budgeted)
    budgeted.endpoint = behind
    assert (summary.counts.errors, summary.counts.stuck) == (1, {"lost_release": 1})
    assert budgeted.everything() == before
    assert sweep(budgeted).counts.released == 1
    assert budgeted.statuses(found) == {"a": "released"}


def test_other_repairs_go_on_during_an_outage(budgeted: World, aws: AwsStub) -> None:
    aws.groups_error = "InternalErrorException"
    found = budgeted.seed(
        {"a": [], "b": ["a"], "f": [], "g": ["f"]},
        {"a": "released", "f": "failed"},
        tasks={"a": "COMPLETED"},
    )
    sweep(budgeted)
    assert budgeted.statuses(found) == {
        "a": "succeeded", "b": "blocked", "f": "failed", "g": "skipped"
    }  # fmt: skip


def test_teams_are_read_once_per_user(
    budgeted: World, aws: AwsStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monthly_budget, "CACHE_SECONDS", 3600.0)
    for _ in range(2):
        budgeted.seed({f"c{number}": [] for number in range(5)})
    assert sweep(budgeted).counts.released == 10
    assert len(aws.groups_asked) == 1
    # Nothing is due any more, so nobody asks.
    assert sweep(budgeted).counts.released == 0
    assert len(aws.groups_asked) == 1


def test_cognito_can_have_its_own_endpoint(
    budgeted: World, aws: AwsStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process finds it in its environment, under the standard name."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", budgeted.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER", aws.url)
    aws.groups[USER] = ["growth"]
    found = budgeted.seed({"a": []})
    built = wiring.build_reconciler(budgeted.settings, clock=budgeted.clock)
    assert built.release(found, "a").outcome == "released"
    (task,) = budgeted.tasks(found)
    assert task["team_ids"] == {"L": [{"S": "growth"}]}
