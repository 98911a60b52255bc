"""Every command that is suggested is complete, and every page that is named exists."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.cli.main import COMMANDS
from reconciler.domain.codes import NEEDS_ACTION, STUCK_CODES
from reconciler.domain.diagnosis import Evidence
from reconciler.inspection.advice import fix_of, fixes_of, parent_fixes_of, runbook_of
from reconciler.inspection.explain import to_json
from reconciler.inspection.views import Command
from reconciler.stores.rows import parse_task
from tests.unit.cli.test_listing import ENTRY
from tests.unit.cli.views import NAME, orchestration, view_of

ROOT = Path(__file__).parents[3]
TASK = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.mark.parametrize("code", STUCK_CODES)
def test_the_runbook_has_a_section_for_each_code(code: str) -> None:
    page, _, anchor = runbook_of(code).partition("#")
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.search(rf"^### `{anchor}`$", text, re.MULTILINE)


@pytest.mark.parametrize("code", sorted(NEEDS_ACTION))
def test_each_code_needing_action_has_a_command(code: str) -> None:
    words = shlex.split(fix_of(replace(ENTRY, sub_issue_id="it's", code=code)))
    assert words[0] == "reconciler"
    assert words[1] in COMMANDS
    assert words[2:] in ([], [ENTRY.orchestration_id], [ENTRY.orchestration_id, "it's"])


def words_of(command: Command) -> list[str]:
    """Return the words that a shell would run, with date and variables filled in."""
    script = f"aws() {{ printf '%s\\0' \"$@\"; }}; {command.line}"
    environment = {"PATH": "/usr/bin:/bin", "ORCHESTRATION_TABLE_NAME": "O", "TASK_TABLE_NAME": "T"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


STUCK = {
    "a": ([], "released", {"child_task_id": {"S": TASK}}),
    "b": (["it's gone"], "blocked", {}),
    "c": (["c"], "blocked", {}),
    "d": ([], "odd", {}),
}
"""One child for each fix that writes or reads the child's own row."""


def test_a_fix_changes_only_an_unchanged_row() -> None:
    """Its command writes only if the status is still the one that was read."""
    graph = {key: before for key, (before, _, _) in STUCK.items()}
    statuses = {key: status for key, (_, status, _) in STUCK.items()}
    rows = {key: row for key, (_, _, row) in STUCK.items()}
    view = view_of(orchestration(graph, statuses, rows=rows), Evidence(tasks={TASK: None}))
    fixes = {child.sub_issue_id: fixes_of(view, child) for child in view.stuck}
    assert set(fixes) == set(STUCK)
    back = words_of(fixes["a"][0])
    assert option(back, "--condition-expression") == "child_status = :was"
    values = json.loads(option(back, "--expression-attribute-values"))
    assert (values[":ready"], values[":was"]) == ({"S": "ready"}, {"S": "released"})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", values[":now"]["S"])
    assert fixes["a"][1].line == f"reconciler release {NAME} a"
    gone = words_of(fixes["b"][0])
    assert option(gone, "--update-expression") == "REMOVE depends_on[0] SET updated_at = :now"
    assert json.loads(option(gone, "--expression-attribute-values"))[":gone"] == {"S": "it's gone"}
    assert fixes["c"][0].purpose == "if ENG-3 need not wait for itself"
    assert words_of(fixes["d"][0])[:2] == ["dynamodb", "get-item"]
    said = to_json(view)["children"][0]
    assert said["fixes"][0]["run"] == fixes["a"][0].line
    assert said["runbook"] == "docs/operating.md#missing_task"


def test_a_fix_shows_the_row_that_is_malformed() -> None:
    """It may be the meta row or the task's; an orphan's own row is right and names its parent."""
    found = orchestration({"a": []})
    assert found.meta is not None
    nobody = view_of(replace(found, meta=replace(found.meta, user_id=None)))
    (fix,) = fixes_of(nobody, nobody.stuck[0])
    assert json.loads(option(words_of(fix), "--key"))["sub_issue_id"] == {"S": "#meta"}
    rows = {"a": {"child_task_id": {"S": TASK}}}
    odd = Evidence(tasks={TASK: parse_task({"task_id": {"S": TASK}, "status": {"S": "odd"}})})
    named = view_of(orchestration({"a": []}, {"a": "released"}, rows=rows), odd)
    (fix,) = fixes_of(named, named.stuck[0])
    assert json.loads(option(words_of(fix), "--key")) == {"task_id": {"S": TASK}}
    orphaned = view_of(replace(found, meta=None))
    (fix,) = fixes_of(orphaned, orphaned.stuck[0])
    assert fix.purpose == "see in the row of ENG-1 which parent issue to have seeded again"


def test_a_wrong_child_count_has_a_fix() -> None:
    """Without a meta row there is no count to correct."""
    found = orchestration({"a": []}, {"a": "succeeded"})
    assert found.meta is not None
    few = replace(found, meta=replace(found.meta, child_count=3))
    (fix,) = parent_fixes_of(view_of(few))
    words = words_of(fix)
    assert json.loads(option(words, "--key"))["sub_issue_id"] == {"S": "#meta"}
    values = json.loads(option(words, "--expression-attribute-values"))
    assert (values[":count"], values[":was"]) == ({"N": "1"}, {"N": "3"})
    assert parent_fixes_of(view_of(replace(found, meta=None))) == ()


def test_an_unsettled_parent_needing_action_has_a_fix() -> None:
    """It never overwrites a posted roll-up; if settling is off, it switches settling on."""
    found = view_of(orchestration({"a": []}, {"a": "succeeded"}))
    assert (found.code, parent_fixes_of(found)) == ("unsettled_parent", ())
    (fix,) = parent_fixes_of(replace(found, needs_action=True))
    words = words_of(fix)
    assert json.loads(option(words, "--key"))["sub_issue_id"] == {"S": "#meta"}
    condition = option(words, "--condition-expression")
    assert condition == "attribute_not_exists(rollup_posted_at)"
    off = replace(found.given, policy=replace(found.given.policy, settles=False))
    (fix,) = parent_fixes_of(replace(found, needs_action=True, given=off))
    assert fix.line == f"SETTLE_MODE=nudge reconciler evaluate {NAME}"
