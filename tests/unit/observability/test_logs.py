"""Logs: what a line holds, and what it never does."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from reconciler.observability.logs import configure_logging
from reconciler.settings import load_settings

TABLES = {
    "ORCHESTRATION_TABLE_NAME": "orchestrations",
    "TASK_TABLE_NAME": "tasks",
    "TASK_EVENTS_TABLE_NAME": "events",
}


@pytest.fixture(autouse=True)
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level


def connect() -> None:
    password = "p4ssword-" + "of-the-broker"
    raise ConnectionError("no " + password[:0] + "answer")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_says_where_and_not_what_the_variables_held(form: str) -> None:
    out = io.StringIO()
    configure_logging(load_settings({**TABLES, "LOG_FORMAT": form}), out)
    try:
        connect()
    except ConnectionError:
        logging.getLogger("celery").exception("lost")
    said = out.getvalue()
    assert "no answer" in said
    assert "test_logs.py" in said
    assert "p4ssword-of-the-broker" not in said
    if form == "json":
        assert json.loads(said)["event"] == "lost"
