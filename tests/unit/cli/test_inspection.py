"""What ``inspect`` says of a child: why it is stuck, what happens next, when, and what to do."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from reconciler.cli.console import STAND_IN
from reconciler.cli.screens.inspect import render
from reconciler.domain.codes import Code
from reconciler.domain.diagnosis import Evidence
from reconciler.domain.model import Orchestration, Task, timestamp
from reconciler.domain.outcomes import Outcome
from reconciler.inspection.advice import commands_for, fixes_of
from reconciler.inspection.explain import to_json
from reconciler.inspection.views import Repair, View
from reconciler.repair.context import ActionOutcome
from tests.unit.cli.views import NAME, NOW, orchestration, view_of

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\nnext line"


def text_of(view: View, width: int = 100, *, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    out = Console(
        file=io.TextIOWrapper(raw, encoding=encoding, errors=STAND_IN),
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
    )
    out.print(render(view, out, NOW), crop=False)
    out.file.flush()
    return raw.getvalue().decode(encoding)


def due() -> Orchestration:
    return orchestration({"a": [], "b": ["a"]}, {"a": "succeeded"})


def release(**changes: object) -> ActionOutcome:
    planned = ActionOutcome("release", "b", "lost_release", Outcome.RELEASED, applied=False)
    return replace(planned, **changes)  # type: ignore[arg-type]


def test_inspect_says_why_what_and_when() -> None:
    at = NOW + timedelta(seconds=240)
    text = text_of(view_of(due(), actions=[release()], next_sweep_at=at))
    assert "▲ ENG-2  Do b  lost_release for 1 h" in text
    assert "why   every predecessor has succeeded, and nobody has released it" in text
    said = "next  releases it as a new task with the next sweep, in 4 min (12:04:00 UTC)"
    assert said in text
    assert f"reconciler release {NAME} b" in text


def test_an_unknown_sweep_time_is_given_as_bound() -> None:
    text = text_of(view_of(due(), actions=[release()]))
    assert "releases it as a new task with the next sweep, within 5 min" in text


def test_a_pause_comes_with_the_command_to_resume() -> None:
    """A REPAIR_MODE that withholds repairs has no such command."""
    said = "paused since noon by eva: migration"
    view = view_of(due(), actions=[release()], withheld=said, paused=True)
    text = text_of(view)
    assert "Nothing is changed now: paused since noon by eva: migration" in text
    assert "next  nothing now (paused since noon by eva: migration); else it releases it" in text
    assert commands_for(view)[0].line == "reconciler resume"
    by_setting = view_of(due(), actions=[release()], withheld="REPAIR_MODE is report")
    assert all(command.line != "reconciler resume" for command in commands_for(by_setting))


def test_children_with_the_same_problem_are_grouped() -> None:
    graph: dict[str, list[str]] = {"root": [], **{f"c{n}": ["root"] for n in range(20)}}
    text = text_of(view_of(orchestration(graph, {"root": "succeeded"})), 80)
    assert "▲ 20 children  lost_release, the oldest for 1 h" in text
    assert text.count("why ") == 1
    assert "and 12 more" in text
    assert all(len(line) <= 80 for line in text.splitlines() if NAME not in line)


def test_a_child_needing_action_comes_with_its_fix() -> None:
    rows = {"a": {"depends_on": {"S": "not a list"}}}
    view = view_of(orchestration({"a": []}, rows=rows))
    text = text_of(view)
    assert "■ ENG-1  Do a  malformed_row" in text
    assert "next  nothing: it needs manual action" in text
    assert "read  docs/operating.md#malformed_row" in text
    (look,) = fixes_of(view, view.stuck[0])
    words = shlex.split(look.line)
    assert words[:3] == ["aws", "dynamodb", "get-item"]
    assert json.loads(words[words.index("--key") + 1])["sub_issue_id"] == {"S": "a"}


def test_comment_and_command_stay_on_one_line() -> None:
    """A shell would run what follows in the next line, and titles and ids come from a table."""
    rows = {"b": {"display_id": {"S": "ENG-2 " * 9 + "$(touch pasted)"}}}
    found = orchestration({"a": [], "b": ["a"]}, {"a": "succeeded"}, rows=rows)
    lines = text_of(view_of(found), 40).splitlines()
    (comment,) = (line for line in lines if "# release only" in line)
    assert comment.endswith("$(touch pasted), if it is due")


def test_a_released_child_without_a_task_needs_action() -> None:
    found = orchestration({"a": []}, {"a": "released"})
    view = view_of(found, Evidence(found={f"{NAME}_a": None}))
    assert "■ ENG-1  Do a  missing_task_id" in text_of(view)


def test_a_refusal_says_what_to_do() -> None:
    said = "Repository acme/shop is not onboarded. Onboard it, then retry this sub-issue."
    rows = {"a": {"failure_reason": {"S": said}}}
    view = view_of(orchestration({"a": [], "b": []}, {"a": "failed"}, rows=rows))
    text = text_of(view)
    assert "✗ ENG-1  Do a  failed for 1 h" in text
    assert said in text


def test_a_planned_refusal_is_one_sentence() -> None:
    planned = release(outcome=Outcome.REFUSED, detail="Onboard it, then retry this sub-issue.")
    text = text_of(view_of(due(), actions=[planned]))
    said = "marks it failed (Onboard it, then retry this sub-issue.) with the next sweep"
    assert said in text


def test_past_repairs_are_listed_newest_last() -> None:
    made = [
        Repair(
            at=timestamp(NOW - timedelta(minutes=ago)),
            sub_issue_id="b",
            task_id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
            code="lost_release",
            before="blocked",
            after="released",
            stranded_seconds=130.0,
            sweep_id=f"sweep:{ago}",
        )
        for ago in (30, 10)
    ]
    text = text_of(replace(view_of(due()), repairs=tuple(made)))
    lines = [line for line in text.splitlines() if "blocked → released" in line]
    said = "ENG-2  lost_release: blocked → released, after 2 min 10 s"
    assert lines == [
        f"  2026-06-09 11:30:00  {said}  sweep:30",
        f"  2026-06-09 11:50:00  {said}  sweep:10",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_untrusted_text_cannot_control_the_terminal(encoding: str) -> None:
    rows = {
        "b": {
            "title": {"S": HOSTILE},
            "display_id": {"S": HOSTILE},
            "failure_reason": {"S": HOSTILE},
        }
    }
    found = orchestration({"a": [], "b": ["a"], HOSTILE: ["b"]}, {"a": "succeeded"}, rows=rows)
    view = view_of(found, withheld=f"paused since noon by {HOSTILE}: {HOSTILE}")
    text = text_of(replace(view, notes=(HOSTILE,)), encoding=encoding)
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert "next line" in text
    # The JSON has the text as it is in the table.
    assert to_json(view)["children"][1]["title"] == HOSTILE


def test_a_long_title_leaves_room_for_the_code() -> None:
    rows = {"b": {"title": {"S": "very long " * 60}}}
    found = orchestration({"a": [], "b": ["a"]}, {"a": "succeeded"}, rows=rows)
    (line,) = [line for line in text_of(view_of(found)).splitlines() if "lost_release for" in line]
    assert len(line) < 100


def test_commands_quote_each_id_as_one_word() -> None:
    key = "b; rm -rf $(pwd) 'x'"
    found = orchestration({"a": [], key: ["a"]}, {"a": "succeeded"})
    view = view_of(found, actions=[release(sub_issue_id=key)])
    ((line, _),) = [(c.line, c.purpose) for c in fixes_of(view, view.stuck[0])]
    assert shlex.split(line) == ["reconciler", "release", NAME, key]


def test_a_code_comes_with_reason_and_outlook() -> None:
    old = Task("01ARZ3NDEKTSV4RRFFQ69G5FAV", "SUBMITTED", created_at="2026-06-09T09:00:00Z")
    graph = {"a": [], "b": ["a"], "c": ["c"], "d": ["gone"], "e": [], "f": [], "g": [], "h": ["f"]}
    statuses = {"a": "succeeded", "e": "releasing", "f": "released", "g": "odd"}
    rows = {"f": {"child_task_id": {"S": old.task_id}}}
    view = view_of(orchestration(graph, statuses, rows=rows), Evidence(tasks={old.task_id: old}))
    found = {child.sub_issue_id: child for child in view.children if child.code}
    assert {key: child.code for key, child in found.items()} == {
        "b": Code.LOST_RELEASE,
        "c": Code.DEPENDENCY_CYCLE,
        "d": Code.DANGLING_DEPENDENCY,
        "e": Code.ABANDONED_CLAIM,
        "f": Code.UNSTARTED_TASK,
        "g": Code.UNKNOWN_STATUS,
        "h": Code.WAITING,
    }
    for child in found.values():
        assert child.reason
        assert child.outlook is not None
        assert child.outlook.does


def test_inspect_says_that_nothing_is_stuck() -> None:
    view = view_of(orchestration({"a": []}, {"a": "succeeded"}, age=10))
    assert "Nothing in it is stuck." in text_of(view)
    assert not commands_for(view)
