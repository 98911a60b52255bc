"""The operator's drills: something is broken on real processes, and commands tell what.

A drill records which command, with which line, answers each question: *is it alive, what is stuck,
why, since when, what now*.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.domain.codes import Code
from tests.support.aws_stub import aws_stub
from tests.support.broker import Broker, broker_of_its_own
from tests.support.faulty_endpoint import DENIED, FaultyEndpoint, faulty_endpoint
from tests.support.one_of_each import CODES, SETTINGS, OneOfEach
from tests.support.processes import Celery, run_reconciler, until
from tests.support.world import RealClock, build_world

QUESTIONS = ("alive?", "stuck?", "why?", "since when?", "what now?")
HELPED_BY_TIME = frozenset({Code.OVER_BUDGET, Code.UNSTARTED_TASK})
"""Codes that need nobody to end; the other lasting codes need a command or a page."""

WRITES = ("TransactWriteItems", "UpdateItem", "PutItem", "DeleteItem")


@dataclass(frozen=True, slots=True)
class Answer:
    """The line of a command's output that answers a question; empty if there is none."""

    question: str
    command: str
    line: str


@dataclass(slots=True)
class Drill:
    """What was broken, and the answers. ``commands``: how many commands had to be run."""

    name: str
    answers: list[Answer] = field(default_factory=list)
    commands: int = 0


@dataclass(slots=True)
class Night:
    """Everything that a drill can break."""

    celery: Celery
    wire: FaultyEndpoint
    broker: Broker
    cases: OneOfEach
    printed: dict[str, str] = field(default_factory=dict)

    def run(self, command: str) -> str:
        """Run ``reconciler …`` once in a drill, and return what it printed."""
        if command not in self.printed:
            done = run_reconciler(*command.split()[1:], environment=self.celery.environment)
            self.printed[command] = done.stdout + done.stderr
        return self.printed[command]

    def drill(self, name: str, asked: dict[str, tuple[str, str]], *, fresh: bool = True) -> Drill:
        """Ask the questions. ``asked``: question → (command, pattern of the answering line).

        A pattern may match lines before the answer; then its group ``answer`` is the answer.
        ``fresh``: run every command again.
        """
        if fresh:
            self.printed.clear()
        drill = Drill(name, commands=len({command for command, _ in asked.values()}))
        for question, (command, pattern) in asked.items():
            lines = (" ".join(line.split()) for line in self.run(command).splitlines())
            found = re.search(pattern, "\n".join(lines), re.MULTILINE)
            drill.answers.append(Answer(question, command, _line_of(found)))
        return drill


def _line_of(found: re.Match[str] | None) -> str:
    """Return the line in which the pattern, or its group ``answer``, was found."""
    if found is None:
        return ""
    at = found.start("answer") if "answer" in found.re.groupindex else found.start()
    begin = found.string.rfind("\n", 0, at) + 1
    return found.string[begin:].partition("\n")[0]


@contextmanager
def night(endpoint: str, directory: Path) -> Iterator[Night]:
    """One thing of each code on real tables, a broker, and no process yet."""
    with ExitStack() as stack:
        wire = stack.enter_context(faulty_endpoint(endpoint))
        stub = stack.enter_context(aws_stub())
        broker = stack.enter_context(broker_of_its_own(directory / "broker"))
        world = build_world(endpoint, **{**SETTINGS, "SWEEP_INTERVAL_SECONDS": "5"})
        world.clock = RealClock()
        cases = OneOfEach(world).seed()
        world.endpoint = wire.url
        celery = Celery(world, broker.url, directory, {"AWS_ENDPOINT_URL_LAMBDA": stub.url})
        yield Night(celery, wire, broker, cases)


def play(held: Night) -> Iterator[Drill]:
    """Play all drills, one after the other."""
    celery, world = held.celery, held.celery.world
    with celery.worker("w1") as worker:
        with celery.beat():
            until("a complete sweep", lambda: celery.last(complete=True))
            yield held.drill("nothing is broken", _asked(alive="^Backstop .*alive"))
            yield from _codes(held)
            run_reconciler("pause", "--reason", "drill", environment=celery.environment)
            yield held.drill("paused", _paused())
            run_reconciler("resume", environment=celery.environment)
            with _stopped(worker):
                _await(held, "NOT HEALTHY no worker")
                yield held.drill("a worker that was stopped", _workers_gone())
            _await(held, "Backstop .*alive")
            with _denied(held.wire):
                _await_doctor(held, "permissions .*UpdateItem")
                yield held.drill("read-only rights", _denied_answers())
        _await(held, "NOT HEALTHY no beat")
        yield held.drill("a dead beat", _beat_gone())
    _await(held, "NOT HEALTHY no worker")
    yield held.drill("dead workers", _workers_gone())
    held.broker.stop()
    yield held.drill("the broker is gone", _broker_gone())
    held.broker.start()
    for table in world.tables:
        world.client.delete_table(TableName=table)
    yield held.drill("the tables are gone", _tables_gone())


def _codes(held: Night) -> Iterator[Drill]:
    listed = held.run("reconciler list")
    # A sweep may already have repaired some, or may do so before they are inspected.
    lasting = [code for code in CODES if code != Code.QUARANTINED]
    codes = [c for c in lasting if re.search(rf"{c}\b.*{held.cases.where[c]}", listed)]
    for code in codes:
        name = held.cases.where[code]
        # From the line that names the code to its own answer, not to the next code's answer.
        told = rf"^. .*\b{code} for .*\n(?:(?!. .* for \d).*\n)*?"
        what_now = "next" if code in HELPED_BY_TIME else "(?:aws|reconciler|read)"
        inspect = f"reconciler inspect {name}"
        row = rf"{code}\b.*{name}"
        yield held.drill(
            f"`{code}`",
            {
                "alive?": ("reconciler status", "^Backstop .*alive"),
                "stuck?": ("reconciler list", row),
                "why?": (inspect, rf"{told}(?P<answer>why .+)"),
                "since when?": ("reconciler list", rf"^\d+ ?[a-z]+.*{row}"),
                "what now?": (inspect, rf"{told}(?P<answer>{what_now}.+)"),
            },
            fresh=False,
        )


def _asked(*, alive: str) -> dict[str, tuple[str, str]]:
    return {
        "alive?": ("reconciler status", alive),
        "stuck?": ("reconciler status", r"^Stuck .*to act on"),
        "why?": ("reconciler status", r"^■ dependency_cycle .*circle"),
        "since when?": ("reconciler status", r"^■ dependency_cycle \d+ \d+"),
        "what now?": ("reconciler status", r"^reconciler (inspect|unskip) "),
    }


def _paused() -> dict[str, tuple[str, str]]:
    mode = "mode PAUSED since .* by .*: drill"
    return {
        **_asked(alive="^Backstop .*alive"),
        "why?": ("reconciler status", mode),
        "since when?": ("reconciler status", mode),
        "what now?": ("reconciler status", f"{mode}; `reconciler resume` ends it"),
    }


def _beat_gone() -> dict[str, tuple[str, str]]:
    return {
        **_asked(alive="^Backstop .*NOT HEALTHY no beat asks for sweeps"),
        "why?": ("reconciler status", "^beat SILENT"),
        "since when?": ("reconciler status", r"^beat SILENT for \d"),
        "what now?": ("reconciler status", r"SILENT for .*; start it \(docs/operating.md"),
    }


def _workers_gone() -> dict[str, tuple[str, str]]:
    return {
        **_asked(alive="^Backstop .*NOT HEALTHY no worker answers"),
        "why?": ("reconciler status", "^workers none answers"),
        "since when?": ("reconciler status", r"^covered as of \d.* ago"),
        "what now?": ("reconciler status", r"start them \(docs/operating.md#sweep-stale\)"),
    }


def _denied_answers() -> dict[str, tuple[str, str]]:
    return {
        **_asked(alive="^Backstop"),
        "why?": ("reconciler doctor", "permissions .*UpdateItem"),
        "what now?": ("reconciler doctor", r"→ .*deploy/iam/policy.json"),
    }


def _broker_gone() -> dict[str, tuple[str, str]]:
    return {
        "alive?": ("reconciler status", "NOT HEALTHY .*broker cannot be reached"),
        "stuck?": ("reconciler status", "Nothing is known|^Stuck "),
        "why?": ("reconciler doctor", "broker reachable: .*refused"),
        "since when?": ("reconciler sweep --inline --report", r"\b\d+[dhm]\b"),
        "what now?": ("reconciler status", "reconciler sweep --inline --report"),
    }


def _tables_gone() -> dict[str, tuple[str, str]]:
    return {
        **_asked(alive="NOT HEALTHY .*tables cannot be read"),
        "why?": ("reconciler doctor", "OrchestrationTable: .* does not exist"),
        "what now?": ("reconciler doctor", "→ correct ORCHESTRATION_TABLE_NAME"),
    }


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def _denied(wire: FaultyEndpoint) -> Iterator[None]:
    for operation in WRITES:
        wire.fail(DENIED, operation)
    try:
        yield
    finally:
        wire.mend()


def _await(held: Night, pattern: str) -> None:
    _until(held, "reconciler status", pattern)


def _await_doctor(held: Night, pattern: str) -> None:
    _until(held, "reconciler doctor", pattern)


def _until(held: Night, command: str, pattern: str) -> None:
    def said() -> bool:
        held.printed.clear()
        text = "\n".join(" ".join(line.split()) for line in held.run(command).splitlines())
        return re.search(pattern, text, re.MULTILINE) is not None

    until(f"{command} to say {pattern}", said)
