"""Checks of the workers: answers, versions, queues, and whether they sweep.

If no worker answers, that is only a warning, since a new deployment has none yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.doctor.findings import Finding, failure, ok, warning
from reconciler.settings import Settings
from reconciler.sweeping.records import Records
from reconciler.sweeping.segments import NEVER, Scope
from reconciler.sweeping.state import SweepState
from reconciler.version import describe
from workers.broker import broker_client
from workers.broker_records import BrokerRecords

CHECK = "workers"
_ANSWER_SECONDS = 2.0
_ASK_BEAT = "start a beat: celery -A workers beat; or ask for one: reconciler sweep --wait"


def examine_workers(settings: Settings) -> Iterator[Finding]:
    """Check the workers, through a broker that has answered already."""
    from workers.about import ask_workers, of_tables, whereabouts  # noqa: PLC0415 - start-up time
    from workers.application import app  # noqa: PLC0415

    try:
        said = ask_workers(app, _ANSWER_SECONDS)
    except Exception as error:  # noqa: BLE001 - whatever the transport raises
        advice = "see what the broker's findings say"
        yield failure(CHECK, "alive", f"they could not be asked: {error}", advice)
        return
    queues = tuple(str(queue.name) for queue in app.conf.task_queues)
    here = whereabouts(settings)
    yield from judge_deployments(said, here)
    yield from judge_workers(of_tables(said, settings.main_tables), queues, describe())
    records = BrokerRecords(broker_client(settings), settings.deployment_id)
    yield judge_coverage(settings, records, _ASK_BEAT)


def judge_deployments(
    said: Mapping[str, Mapping[str, Any]], here: Mapping[str, Any]
) -> Iterator[Finding]:
    """Report workers of other deployments: they drop our messages, and we drop theirs.

    Only this check notices tables of the same names in another region. Workers of older versions
    do not say where they work.
    """
    for name, answer in sorted(said.items()):
        if _elsewhere(answer, here, "tables"):
            found = f"{name} works on {', '.join(answer['tables'])}; it drops what is asked here"
            advice = (
                "give each deployment a broker database of its own (CELERY_BROKER_URL); after a "
                "change of table names, stop the old workers"
            )
            yield failure(CHECK, "tables", found, advice)
            continue
        for where in ("region", "endpoint"):
            if _elsewhere(answer, here, where):
                theirs, ours = answer[where] or "none", here[where] or "none"
                found = f"{name} has {theirs}, and here it is {ours}"
                advice = (
                    "look from the same place; if these are two deployments, give each a broker "
                    "database of its own (CELERY_BROKER_URL)"
                )
                yield warning(CHECK, where, found, advice)


def _elsewhere(answer: Mapping[str, Any], here: Mapping[str, Any], where: str) -> bool:
    return bool(answer.get(where, here[where]) != here[where])


def judge_workers(
    said: Mapping[str, Mapping[str, Any]], queues: tuple[str, ...], ours: str
) -> Iterator[Finding]:
    """Judge the workers' answers; ``ours``: our own version."""
    if not said:
        advice = "start one: celery -A workers worker"
        yield warning(CHECK, "alive", "none answers", advice)
        return
    yield ok(CHECK, "alive", f"{len(said)} answering: {', '.join(sorted(said))}")
    others = _of_other_versions(said, ours)
    yield _judge_versions(others, ours)
    served = {queue for answer in said.values() for queue in answer.get("queues", ())}
    unserved = ", ".join(queue for queue in queues if queue not in served)
    if not unserved:
        yield ok(CHECK, "queues", f"all are served: {', '.join(queues)}")
    elif not others:
        advice = "start a worker without -Q, or with all of them"
        yield failure(CHECK, "queues", f"nobody serves {unserved}", advice)


def _judge_versions(others: Mapping[str, list[str]], ours: str) -> Finding:
    if not others:
        return ok(CHECK, "version", f"all are {ours}")
    listed = "; ".join(f"{', '.join(names)}: {version}" for version, names in others.items())
    advice = "end the deployment: versions side by side are for its duration only"
    return warning(CHECK, "version", f"this is {ours}, and {listed}", advice)


def _of_other_versions(said: Mapping[str, Mapping[str, Any]], ours: str) -> Mapping[str, list[str]]:
    others: dict[str, list[str]] = {}
    for name, answer in sorted(said.items()):
        version = str(answer.get("version") or "an older version")
        if version != ours:
            others.setdefault(version, []).append(name)
    return others


def judge_coverage(settings: Settings, records: Records, advice: str) -> Finding:
    """Judge the coverage; ``advice``: what to do if no sweep has ever completed."""
    seen = SweepState(records).overview()
    as_of = seen.covered_as_of(Scope.ACTIVE)
    if as_of == NEVER:
        return warning(CHECK, "sweeps", "none has ever completed", advice)
    age = seen.now - as_of
    found = f"active work is covered as of {age:.0f} s ago"
    if age > 2 * settings.sweep_interval_seconds:
        advice = "see `reconciler status`; is beat, or cron, running?"
        return warning(CHECK, "sweeps", found, advice)
    return ok(CHECK, "sweeps", found)
