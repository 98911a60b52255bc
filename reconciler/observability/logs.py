"""Logs: one JSON object per line, or readable lines on a terminal, including Celery's own lines.

An event is a constant name, and the facts are fields. Context (sweep, task, orchestration) is bound
with ``structlog.contextvars`` when work starts. Celery's own lines are written outside of that, and
get theirs from the message.

No log line contains a secret or a task's description. Neither is ever a field, tracebacks contain
no values, long text is cut, and the secrets of this process are redacted from every line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from reconciler.observability.printable import printable, printable_json
from reconciler.observability.secrets import Redactor
from reconciler.settings import Settings

MAX_TEXT_CHARACTERS = 1_000
"""Per field; anything longer is somebody's text, not a fact."""

_ORCHESTRATION = re.compile(r"orch_[0-9a-f]{32}")
_OF_CELERY = ("eta", "runtime", "args", "kwargs", "return_value", "exc")


def configure_logging(
    settings: Settings, stream: TextIO | None = None, *, level: str | None = None
) -> None:
    """Send every log line of this process to ``stream`` (default: standard error).

    ``level`` overrides the setting.
    """
    out = sys.stderr if stream is None else stream
    console = settings.log_format == "console" or (settings.log_format == "auto" and out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        _Blotting(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _tell_of_celery],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _cut,
                *(_for_a_person(out) if console else _for_a_program()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level or settings.log_level)
    logging.captureWarnings(capture=True)
    # They log for each client where its credentials come from.
    for chatty in ("boto3", "botocore", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # "Task received": the line at the end of each task says it again.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)


def _for_a_person(out: TextIO) -> list[structlog.typing.Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [_neutralise, renderer]


def _for_a_program() -> list[structlog.typing.Processor]:
    return [
        # Without the values of local variables, which include rows and settings.
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        structlog.processors.JSONRenderer(_dumps),
    ]


class _Blotting(structlog.stdlib.ProcessorFormatter):
    """Redacts secrets from the finished line."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - the formatter's
        super().__init__(**kwargs)
        self._blotter = Redactor()

    def format(self, record: logging.LogRecord) -> str:
        return self._blotter.redact(super().format(record))


def _dumps(value: Any, **options: Any) -> str:  # noqa: ANN401 - json's
    return printable_json(json.dumps(value, ensure_ascii=False, **options))


def _tell_of_celery(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add our fields to Celery's own lines about a task."""
    facts = event.pop("data", None)
    if not isinstance(facts, dict) or "id" not in facts:
        return event
    task_id = str(facts["id"])
    event["celery_task_id"] = task_id
    event["task"] = facts.get("name")
    event.update({name: facts[name] for name in _OF_CELERY if facts.get(name) is not None})
    told = f"{task_id} {facts.get('args', '')} {facts.get('kwargs', '')}"
    found = _ORCHESTRATION.search(told)
    if found is not None:
        event["orchestration_id"] = found[0]
    sweep = re.search(r"'sweep_id': '([^']+)'", told)
    if sweep is not None or task_id.startswith("sweep:"):
        event["sweep_id"] = sweep[1] if sweep is not None else task_id
    return event


def _cut(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    for name, value in event.items():
        if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS and name != "stack":
            event[name] = f"{value[:MAX_TEXT_CHARACTERS]}… ({len(value)} characters)"
    return event


def _neutralise(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Make values printable, because others wrote some, and terminals obey escape sequences."""
    return {
        name: printable(value) if isinstance(value, str) and name not in {"exception", "stack"}
        else value
        for name, value in event.items()
    }  # fmt: skip
