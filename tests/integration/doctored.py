"""Run the doctor on a world, and sort its findings."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse, HTTPHeaders

from reconciler.clock import utc_now
from reconciler.doctor.examine import examine
from reconciler.doctor.findings import Finding, Level
from reconciler.settings import Settings
from reconciler.tables import Table, create_table
from tests.support.world import EmulatorSession, World

LIGHTER = pytest.mark.parametrize("endpoint", ["moto"], indirect=True)
"""For requests that are refused before they are sent, or that go to another service."""

INDEX = "ChildStatusIndex"

BY_INDEX = {"ACTIVE_INDEX_NAME": INDEX}

DOCTOR_POLICY = Path(__file__).parents[2] / "deploy" / "iam" / "doctor-policy.json"


class RefusingSession(EmulatorSession):
    """An emulator that refuses some operations: (operation, table or index) → error code."""

    def __init__(self, world: World, refused: Mapping[tuple[str, str], str]) -> None:
        super().__init__(world.endpoint, world.others)
        self._refused = refused

    def client(self, service_name: Any, *args: Any, **kwargs: Any) -> Any:
        client = super().client(service_name, *args, **kwargs)
        client.meta.events.register("before-send.dynamodb", self._send)
        return client

    def _send(self, request: Any, **_: Any) -> AWSResponse | None:
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        said = json.loads(request.body)
        (first,) = said.get("TransactItems", [{}])
        table = (
            said.get("TableName")
            or next(iter(said.get("RequestItems", [])), None)
            or first["ConditionCheck"]["TableName"]
        )
        where = f"{table}/{said['IndexName']}" if "IndexName" in said else table
        code = self._refused.get((operation, where)) or self._refused.get((operation, "*"))
        if code is None:
            return None

        class Raw(io.BytesIO):
            def stream(self, **_: Any) -> Iterable[bytes]:
                yield self.read()

        body = json.dumps({"__type": f"com.amazon#{code}", "message": "not you"}).encode()
        return AWSResponse(request.url, 400, HTTPHeaders(), Raw(body))


def look(
    world: World,
    refused: Mapping[tuple[str, str], str] | None = None,
    *,
    seconds_ahead: float = 0.0,
    environ: Mapping[str, str] | None = None,
    **changes: Any,
) -> list[Finding]:
    """Examine everything but the broker, and check that nothing was written."""
    settings = world.settings.model_copy(update=changes)
    before = world.everything()
    found = list(
        examine(
            settings,
            environ or {},
            RefusingSession(world, refused or {}),
            lambda: utc_now() + timedelta(seconds=seconds_ahead),
            inline=True,
        )
    )
    assert world.everything() == before
    return found


def of(level: Level, findings: Iterable[Finding]) -> list[tuple[str, str]]:
    assert all(finding.advice for finding in findings if finding.level is not Level.OK)
    return [(f.check, f.subject) for f in findings if f.level is level]


def rebuilt(world: World, which: str, table: Table, number: int = 0) -> dict[str, Any]:
    """Create a table of another shape, and return the setting that names it."""
    name = f"{getattr(world.settings, which)}-other{number}"
    create_table(world.client, name, table)
    return {which: name}


# -- the broker


SETTINGS = Settings(
    orchestration_table_name="orchestrations",
    task_table_name="tasks",
    task_events_table_name="events",
)
