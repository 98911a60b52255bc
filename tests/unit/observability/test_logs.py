"""Logs: one JSON object a line whoever wrote it, and never a secret in any of them."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from reconciler.observability.logs import MAX_TEXT_CHARACTERS, configure_logging
from reconciler.observability.printable import printable, printable_json
from reconciler.observability.secrets import Redactor
from reconciler.settings import Settings, load_settings

log = structlog.get_logger("reconciler")
PASSWORD = "p@ss/w:rd-of-the-broker"
QUOTED = "p%40ss%2Fw%3Ard-of-the-broker"
BROKER = f"rediss://reconciler:{QUOTED}@broker.example:6379/0"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Where the log of this process goes, with a broker whose URL holds a password."""
    monkeypatch.setenv("CELERY_BROKER_URL", BROKER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", 'wJalr"XUtnFEMI/K7MDENG')
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "eva:correct-horse,adam:battery-staple")
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    # Captured for another test, they would not be a second time.
    logging.captureWarnings(capture=False)
    configure_logging(settings(), stream)
    yield stream
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def settings(**changes: str) -> Settings:
    names = ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME")
    return load_settings({**dict.fromkeys(names, "some-table"), **changes})


def log_a_failure(message: str, held: str) -> None:
    """Fail with a message, where a local variable holds something."""

    def fail() -> None:
        description = held
        raise ValueError(message[: len(message) + len(description)])

    try:
        fail()
    except ValueError:
        log.exception("orch.sweep.failed")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_ours_foreign_ones_and_warnings_are_one_object_each(said: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(sweep_id="sweep:7")
    log.info("orch.child.released", orchestration_id="orch_1", title="line\nbreak")
    logging.getLogger("celery.worker").warning("lost %s", "a connection\nand more")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("you run as root", stacklevel=1)
    ours, foreign, warned = lines(said)
    assert (ours["event"], ours["sweep_id"]) == ("orch.child.released", "sweep:7")
    assert (foreign["event"], foreign["sweep_id"]) == ("lost a connection\nand more", "sweep:7")
    assert "you run as root" in warned["event"]
    assert all("timestamp" in line and "level" in line for line in (ours, foreign, warned))


def test_celerys_lines_about_a_task_bear_its_ids(said: io.StringIO) -> None:
    orchestration = "orch_" + "a" * 32
    facts = {
        "id": f"evaluate:{orchestration}:5985243",
        "name": "reconciler.evaluate_orchestration",
        "args": f"('{orchestration}',)",
        "kwargs": "{'sweep_id': 'sweep:5985243'}",
    }
    logging.getLogger("celery.worker.strategy").info("Task received", extra={"data": facts})
    (line,) = lines(said)
    assert line["celery_task_id"] == facts["id"]
    assert line["task"] == facts["name"]
    assert (line["orchestration_id"], line["sweep_id"]) == (orchestration, "sweep:5985243")
    assert "data" not in line


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_has_no_values_in_it(said: io.StringIO, log_format: str) -> None:
    configure_logging(settings(LOG_FORMAT=log_format), said)
    log_a_failure("2 rows", "the whole text of somebody's issue")
    assert "ValueError" in said.getvalue()
    assert "somebody's issue" not in said.getvalue()


@pytest.mark.parametrize(
    "secret",
    [
        PASSWORD,
        QUOTED,
        BROKER,
        'wJalr"XUtnFEMI/K7MDENG',
        "correct-horse",
        "battery-staple",
    ],
)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_secret_of_this_process_is_blotted_out_of_every_line(
    said: io.StringIO, secret: str, log_format: str
) -> None:
    configure_logging(settings(LOG_FORMAT=log_format), said)
    log.warning("orch.sweep.failed", detail=f"could not reach {secret}", nested={"a": [secret]})
    logging.getLogger("kombu").error("Cannot connect to %s", secret)
    log_a_failure(secret, "")
    written = said.getvalue()
    assert "orch.sweep.failed" in written
    for form in (secret, json.dumps(secret)[1:-1], PASSWORD, QUOTED):
        assert form not in written
    if log_format == "json":
        assert lines(said)


def test_the_password_of_any_url_is_blotted_out_even_if_nobody_knew_it() -> None:
    redactor = Redactor.of_environment({})
    assert (
        redactor.redact("tried amqp://guest:secret@host:5672//, then redis://:other@h/0")
        == "tried amqp://guest:**@host:5672//, then redis://:**@h/0"
    )
    kept = "http://127.0.0.1:8000/path?x=1 at 12:00 by eva@example.org"
    assert redactor.redact(kept) == kept


def test_names_that_only_point_to_a_secret_are_none() -> None:
    redactor = Redactor.of_environment(
        {"DB_SECRET_ARN": "arn:aws:secretsmanager:eu:1:secret:x", "API_TOKEN": "abcdefgh", "A": "b"}
    )
    said = "arn:aws:secretsmanager:eu:1:secret:x abcdefgh b"
    assert redactor.redact(said) == "arn:aws:secretsmanager:eu:1:secret:x ** b"


def test_long_text_is_cut(said: io.StringIO) -> None:
    log.info("orch.sweep.failed", detail="x" * 50_000)
    (line,) = lines(said)
    assert len(line["detail"]) < MAX_TEXT_CHARACTERS + 40
    assert line["detail"].endswith("… (50000 characters)")


def test_a_terminal_is_told_nothing_that_it_would_obey(said: io.StringIO) -> None:
    configure_logging(settings(LOG_FORMAT="console"), said)
    log.info("orch.sweep.stuck", reason="\x1b[2J\x9b1mred\u202e\r\nnext")
    text = said.getvalue()
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert text.count("\n") == 1


def test_json_that_cannot_be_seen_is_escaped_and_stays_the_same(said: io.StringIO) -> None:
    reason = "\x1b[2J\x9b\u202e\U000e0041 日本語 👩\u200d💻"
    log.info("orch.sweep.stuck", reason=reason)
    (line,) = lines(said)
    assert line["reason"] == reason
    assert "\x9b" not in said.getvalue()
    assert "\u202e" not in said.getvalue()
    assert "日本語" in said.getvalue()
    assert json.loads(printable_json(json.dumps({"a": reason}, ensure_ascii=False)))["a"] == reason


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("tab\tand\nline", "tab and line"),
        ("\x1b[31m", "␛[31m"),
        ("\x7f\x9b", "␡\N{REPLACEMENT CHARACTER}"),
        ("\u202egnp", "\N{REPLACEMENT CHARACTER}gnp"),
        ("👩\u200d💻 é 日本", "👩\u200d💻 é 日本"),
    ],
)
def test_what_a_control_character_is_shown_as(given: str, shown: str) -> None:
    assert printable(given) == shown
