"""Random arguments: every sub-command ends with an exit code and without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from io import StringIO
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.cli.main import root
from tests.simulation.actors import ClockHand
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.world import ORCH, START, DirectPort, reconciler_on, sim_settings
from tests.unit.hostile.values import texts

COMMANDS = ("inspect", "release", "evaluate", "unskip", "sweep", "pause", "resume")
OPTIONS = (
    "--json", "--report", "--inline", "--segments", "--format", "--reason",
    "--help", "-h", "--", "-", "--version", "--no-such-option", "svg",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def on_tables_in_memory() -> Iterator[MemoryDynamoDB]:
    database = MemoryDynamoDB()
    made = reconciler_on(DirectPort(database, ClockHand(START)))
    with ExitStack() as stack:
        stack.enter_context(patch("reconciler.cli.wiring.load_settings", sim_settings))
        for name in ("inspect", "by_hand", "sweep", "control"):
            where = f"reconciler.cli.commands.{name}.reconciler_for_cli"
            stack.enter_context(patch(where, lambda *_, **__: made))
        away = {"CELERY_BROKER_URL": "", "LOG_LEVEL": "ERROR"}
        stack.enter_context(patch.dict("os.environ", away))
        yield database


def run(*arguments: str) -> tuple[int, str]:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        root.main(list(arguments))
    code = ended.value.code
    assert isinstance(code, int)
    return code, err.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(COMMANDS),
    st.lists(st.one_of(st.sampled_from([*OPTIONS, ORCH, "a"]), texts), max_size=5),
)
def test_any_arguments_end_with_an_exit_code(command: str, arguments: list[str]) -> None:
    code, said = run(command, *arguments)
    assert code in {0, 1, 2, 3}, said
    assert "Traceback" not in said
    assert "RECONCILER_DEBUG" not in said, said


@settings(max_examples=50, deadline=None)
@given(texts.filter(lambda text: text[:1] != "-"))
def test_an_unknown_name_exits_2_with_one_line(name: str) -> None:
    for arguments in (("release", name, name), ("evaluate", name)):
        code, said = run(*arguments)
        lines = [line for line in said.splitlines() if not line.startswith("{")]
        assert (code, len(lines)) == (2, 1), said
