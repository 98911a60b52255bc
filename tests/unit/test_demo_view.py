"""The demo's output fits 80 columns, and its verdict is right on a slow machine."""

from __future__ import annotations

import io
import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from reconciler.cli.console import STAND_IN
from reconciler.demo import run
from reconciler.demo.observer import Observer, Recovery, Snapshot
from reconciler.demo.platform import Seeded
from reconciler.demo.shapes import Blueprint, fan_out
from reconciler.demo.verdict import Verdict, judge
from reconciler.demo.view import LEGEND, Board, draw, draw_verdict, one_line
from reconciler.domain.model import ChildStatus, Meta, Orchestration, Task
from reconciler.settings import load_settings
from reconciler.stores.rows import parse_child
from tests.support.strategies import NOW, ago

TABLES = ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME")
SETTINGS = load_settings({**dict.fromkeys(TABLES, "table"), "STRANDED_GRACE_SECONDS": "2"})
SWEEPS = [
    {"sweep_id": f"sweep:{number}", "ended_at": number * 5.0, "duration_seconds": 1.0}
    for number in range(1, 4)
]
WIDE = fan_out(9)


def key_of(number: int) -> str:
    return f"orch_{number:032x}"


def orchestration(key: str, blueprint: Blueprint, status: str) -> Orchestration:
    rows = {
        spec.key: parse_child(
            {
                "orchestration_id": {"S": key},
                "sub_issue_id": {"S": spec.key},
                "child_status": {"S": status},
                "child_task_id": {"S": f"T-{key}-{spec.key}"},
                "depends_on": {"L": [{"S": name} for name in spec.depends_on]},
            }
        )
        for spec in blueprint.children
    }
    settled = status == "succeeded"
    meta = Meta(key, len(rows), "user-1", "acme/shop", ago(9), ago(9), settled=settled)
    return Orchestration(key, meta, rows)


def seen(status: str = "succeeded", *, repaired_after: float = 3.0) -> Observer:
    """Return what was observed of four orchestrations with one repaired child."""
    keys = [key_of(number) for number in range(4)]
    found = {key: orchestration(key, WIDE, status) for key in keys}
    tasks = {
        child.task_id or "": Task(child.task_id or "", "COMPLETED", completed_at=ago(60))
        for each in found.values()
        for child in each.children.values()
    }
    at = NOW - timedelta(seconds=60 - repaired_after)
    repaired = Recovery((keys[0], "A"), "lost_terminal", at)
    observer = Observer(SETTINGS)
    observer.observe(Snapshot(NOW, found, tasks, (repaired,)))
    return observer


def verdict_of(observer: Observer, gave_up: str | None = None) -> Verdict:
    expected = {
        key_of(number): {spec.key: ChildStatus.SUCCEEDED for spec in WIDE.children}
        for number in range(4)
    }
    return judge(observer, expected, SWEEPS, events_lost=1, gave_up=gave_up)


def board_of(observer: Observer) -> Board:
    assert observer.latest is not None
    ids = {spec.key: spec.key for spec in WIDE.children}
    return Board(
        elapsed=75.0,
        phase="it is back, unaware of what it missed",
        down_for=100.0,
        events_lost=1234,
        sweeps=SWEEPS,
        interval=5,
        restarts=3,
        seeded=[Seeded(key_of(number), WIDE, "user-1", ids) for number in range(4)],
        stranded=observer.stranded,
        snapshot=observer.latest,
    )


def printed(what: object, *, width: int = 80, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, errors=STAND_IN) as out:
        Console(file=out, width=width, height=24, no_color=True).print(what)
        out.flush()
        return raw.getvalue().decode(encoding).splitlines()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("status", ["succeeded", "released"])
def test_the_board_fits_80_columns_with_whole_ids(status: str, encoding: str) -> None:
    console = Console(
        width=80, height=24, file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), no_color=True
    )
    lines = printed(draw(board_of(seen(status)), console), encoding=encoding)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any(line.rstrip().endswith(" 1") and key_of(0) in line for line in lines)
    assert all(any(key_of(number) in line for line in lines) for number in range(4))
    whole = "".join(lines)
    assert all(f"{mark.word} " in f"{whole} " for mark in LEGEND)
    assert "unaware of what it missed" in whole
    assert ("stranded 60 s" in whole) is (status == "released")


def test_a_wide_board_shows_what_was_repaired() -> None:
    assert "advanced 1" in "".join(printed(draw(board_of(seen()), Console(width=120)), width=120))


def test_the_verdict_fits_80_columns() -> None:
    verdict = verdict_of(seen("released"))
    assert not verdict.ok
    assert max(map(len, printed(draw_verdict(verdict)))) <= 80


def test_a_pipe_gets_one_line() -> None:
    assert one_line(board_of(seen())).startswith("   75 s  it is back")


def test_a_repair_within_the_measured_bound_is_fine() -> None:
    verdict = verdict_of(seen(repaired_after=7.9))
    assert verdict.ok, verdict.problems
    assert verdict.bound_seconds == pytest.approx(2 + 5 + 1)
    assert verdict.latency_max_seconds == pytest.approx(7.9)


def test_a_repair_past_the_bound_is_a_problem() -> None:
    assert verdict_of(seen(repaired_after=8.1)).problems == (
        f"a recovery took longer than 8.0 s: A of {key_of(0)} (lost_terminal): 8.1 s",
    )


def test_giving_up_is_reported_as_out_of_time() -> None:
    """Work that is unfinished by then is not a second problem."""
    observer = seen("released")
    observer.early.clear()
    verdict = verdict_of(observer, gave_up="nothing moved for 300 s")
    assert verdict.out_of_time
    assert verdict.problems == ("ran out of time: nothing moved for 300 s",)


def test_giving_up_hides_no_violation() -> None:
    observer = seen()
    observer.regressions.append("a row went back")
    problems = verdict_of(observer, gave_up="nothing moved").problems
    assert problems[0] == "a regression was seen: a row went back"


def test_the_demo_ignores_the_callers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps only a few variables, such as TERM."""
    theirs = {
        "AWS_PROFILE": "mine",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "CELERY_BROKER_URL": "redis://mine",
        "FLOWER_PORT": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "PYTHONPATH": "/mine",
        "SWEEP_INTERVAL_SECONDS": "86400",
        "VALKEY_SERVER": "/mine",
        "TERM": "dumb",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with run.environment_of_its_own(tmp_path):
        within = dict(os.environ)
    assert dict(os.environ) == before
    assert within["TERM"] == "dumb"
    assert within["FLOWER_DB"] == str(tmp_path / "flower")
    assert within["PYTHONPATH"] == str(run.ROOT)
    own = {
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_EC2_METADATA_DISABLED",
        "FLOWER_DB",
        "PYTHONPATH",
    }
    assert within.keys() <= {*run.KEPT_VARIABLES, *own}


@pytest.mark.parametrize("moves", [0, 3])
def test_a_phase_ends_after_sweeps_without_progress(
    moves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of idle sweeps decides, however long a turn takes."""
    stage = SimpleNamespace(phase="", sweeps={}, platform=SimpleNamespace(seeded={}))
    turns = 0

    def turn(*_: object) -> Snapshot:
        nonlocal turns
        turns += 1
        stage.sweeps[turns] = "a sweep"
        ended = {str(n): Task(str(n), "COMPLETED") for n in range(min(turns, moves))}
        return Snapshot(NOW, {}, ended)

    monkeypatch.setattr(run, "turn", turn)
    with pytest.raises(run.OutOfTimeError, match="10 sweeps, while all is well"):
        run.play_phase(stage, "all is well", lambda _: None, lambda _: False)  # type: ignore[arg-type]
    assert turns == max(1, moves) + run.MAX_IDLE_SWEEPS
