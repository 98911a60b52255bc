"""Logs: each line is one JSON object, whoever wrote it, and none contains a secret."""

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
    """Return the stream of this process's log; its environment holds secrets."""
    monkeypatch.setenv("CELERY_BROKER_URL", BROKER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", 'wJalr"XUtnFEMI/K7MDENG')
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "eva:correct-horse,adam:battery-staple")
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    # If another test has captured warnings, they would not be captured again.
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
    """Log an exception with a message, while a local variable has the value ``held``."""

    def fail() -> None:
        description = held
        raise ValueError(message[: len(message) + len(description)])

    try:
        fail()
    except ValueError:
        log.exception("orch.sweep.failed")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_log_line_is_one_object(said: io.StringIO) -> None:
    """That is true for our own lines, those of libraries, and warnings."""
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


def test_celerys_lines_carry_the_tasks_ids(said: io.StringIO) -> None:
    orchestration = "orch_" + "a" * 32
    facts = {
        "id": f"evaluate:{orchestration}:5985243",
        "name": "reconciler.evaluate_orchestration",
        "args": f"('{orchestration}',)",
        "kwargs": "{'sweep_id': 'sweep:5985243'}",
    }
    logging.getLogger("celery.app.trace").info("Task succeeded", extra={"data": facts})
    (line,) = lines(said)
    assert line["celery_task_id"] == facts["id"]
    assert line["task"] == facts["name"]
    assert (line["orchestration_id"], line["sweep_id"]) == (orchestration, "sweep:5985243")
    assert "data" not in line


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_local_values(said: io.StringIO, log_format: str) -> None:
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
def test_a_secret_of_the_process_is_redacted_everywhere(
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


def test_the_password_of_any_url_is_redacted() -> None:
    """Even if the environment does not hold it."""
    redactor = Redactor({})
    assert (
        redactor.redact("tried amqp://guest:secret@host:5672//, then redis://:other@h/0")
        == "tried amqp://guest:**@host:5672//, then redis://:**@h/0"
    )
    kept = "http://127.0.0.1:8000/path?x=1 at 12:00 by eva@example.org"
    assert redactor.redact(kept) == kept


def test_the_arn_of_a_secret_is_not_redacted() -> None:
    redactor = Redactor(
        {"DB_SECRET_ARN": "arn:aws:secretsmanager:eu:1:secret:x", "API_TOKEN": "abcdefgh", "A": "b"}
    )
    said = "arn:aws:secretsmanager:eu:1:secret:x abcdefgh b"
    assert redactor.redact(said) == "arn:aws:secretsmanager:eu:1:secret:x ** b"


def test_long_text_is_cut(said: io.StringIO) -> None:
    log.info("orch.sweep.failed", detail="x" * 50_000)
    (line,) = lines(said)
    assert len(line["detail"]) < MAX_TEXT_CHARACTERS + 40
    assert line["detail"].endswith("… (50000 characters)")


def test_the_console_gets_no_control_characters(said: io.StringIO) -> None:
    configure_logging(settings(LOG_FORMAT="console"), said)
    log.info("orch.sweep.stuck", reason="\x1b[2J\x9b1mred\u202e\r\nnext")
    text = said.getvalue()
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert text.count("\n") == 1


def test_json_escapes_invisible_characters_without_loss(said: io.StringIO) -> None:
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
def test_control_characters_are_replaced(given: str, shown: str) -> None:
    assert printable(given) == shown
