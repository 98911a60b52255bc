"""A real worker counts outages of AWS, logs each once, and holds none against an orchestration."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.clock import utc_now
from reconciler.observability.redis_metrics import read_series
from tests.integration.workers.conftest import celery_over
from tests.support.faulty_endpoint import faulty_endpoint
from tests.support.hosts import fleet_of
from tests.support.processes import Celery, until
from tests.support.world import build_world
from workers.names import SWEEP

pytestmark = [pytest.mark.integration, pytest.mark.workers]

ORCHESTRATIONS = 5
CHAIN = {"a": [], "b": ["a"]}
REJECTED = (400, "ValidationException")
KINDS = [
    ("credentials", (400, "ExpiredTokenException"), "no"),
    ("index_unavailable", REJECTED, "The table does not have the specified index: I"),
    ("encryption_key", (400, "KMSDisabledException"), "no"),
    ("account_limit", (400, "LimitExceededException"), "no"),
    ("access", (400, "AccessDeniedException"), "no"),
    ("unknown_refusal", (400, "SomethingNewException"), "no"),
]


def said(log: str, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]


def errors(celery: Celery, kind: str) -> float:
    series = read_series(celery.redis, celery.world.settings)
    return float(series.get(("reconciler_errors_total", (("kind", kind),), ""), 0.0))


@pytest.mark.parametrize("endpoint", ["moto"], indirect=True)
def test_a_worker_logs_each_outage_once(endpoint: str, broker: str, tmp_path: Path) -> None:
    """It counts each kind for every orchestration, holds it against none, and then recovers all."""
    world = build_world(
        endpoint, SWEEP_INTERVAL_SECONDS="300", STRANDED_GRACE_SECONDS="1", SWEEP_SEGMENTS="1"
    )
    found = [
        world.seed(CHAIN, {"a": "released"}, tasks={"a": "COMPLETED"})
        for _ in range(ORCHESTRATIONS)
    ]
    with faulty_endpoint(endpoint) as service:
        world.endpoint = service.url
        celery = celery_over(world, broker, tmp_path)
        with fleet_of(celery) as fleet:
            worker = fleet.worker()
            for kind, answer, message in KINDS:
                service.fail(answer, "Query", message=message)
                celery.call(SWEEP)
                until(
                    f"{kind} to be counted for each orchestration",
                    lambda kind=kind: errors(celery, kind) >= ORCHESTRATIONS,  # type: ignore[misc]
                )
                until(
                    "nothing to await evaluation",
                    lambda: not any(k.waiting for k in celery.state.overview().known.values()),
                )
                stuck = celery.state.overview().list_stuck()
                assert {entry.code for entry in stuck} == {"check_failed"}
                service.mend()
            lost = said(worker.log, "orch.aws.lost")
            assert [line["error_kind"] for line in lost] == [kind for kind, _, _ in KINDS]
            assert all(line["meaning"] and line["advice"] for line in lost)
            assert said(worker.log, "orch.evaluation.failed") == []
            assert "Traceback" not in worker.log
            celery.call(SWEEP)
            until(
                "everything to be recovered",
                lambda: all(world.statuses(name)["b"] == "released" for name in found),
            )
    world.endpoint = endpoint
    reconciler = world.reconciler()
    for name in found:
        whole = reconciler.orchestrations.read(name)
        assert whole is not None
        assert not whole.attempts, "an outage was held against the orchestration"


PROVIDER = """#!/bin/sh
cat {answer}
"""


@pytest.mark.parametrize("endpoint", ["moto"], indirect=True)
def test_a_worker_recovers_from_expired_provider_credentials(
    endpoint: str, broker: str, tmp_path: Path
) -> None:
    """The client raises a RuntimeError; once the provider has new ones, the worker goes on."""
    world = build_world(
        endpoint, SWEEP_INTERVAL_SECONDS="300", STRANDED_GRACE_SECONDS="1", SWEEP_SEGMENTS="1"
    )
    found = world.seed(CHAIN, {"a": "released"}, tasks={"a": "COMPLETED"})
    answer, program, config = (tmp_path / name for name in ("answer", "provider", "config"))
    program.write_text(PROVIDER.format(answer=answer))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    config.write_text(f"[default]\ncredential_process = {program}\n")

    def provide(hours: float) -> None:
        keys = {"AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c", "Version": 1}
        expires = (utc_now() + timedelta(hours=hours)).isoformat()
        answer.write_text(json.dumps({**keys, "Expiration": expires}))

    provide(-1)
    celery = celery_over(world, broker, tmp_path)
    celery.extra = {
        "AWS_CONFIG_FILE": str(config),
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_SESSION_TOKEN": "",
    }
    with fleet_of(celery) as fleet:
        worker = fleet.worker()
        celery.call(SWEEP)
        until("the outage to be counted", lambda: errors(celery, "credentials") >= 1)
        (lost,) = said(worker.log, "orch.aws.lost")
        assert lost["error_kind"] == "credentials"
        assert "refreshed credentials are still expired" in lost["detail"]
        assert "Traceback" not in worker.log
        provide(+1)
        celery.call(SWEEP)
        until("the recovery", lambda: world.statuses(found)["b"] == "released")
