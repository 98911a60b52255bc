"""A real Prometheus on loopback, and its promtool, both from the path."""

from __future__ import annotations

import json
import os
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.embedded.process import free_port, running

RULES = Path(__file__).parents[2] / "deploy" / "prometheus"


def tool(name: str) -> str:
    """Return the path of a program; if there is none, skip the test, or fail it in CI."""
    found = shutil.which(name)
    if found is None:
        said = f"{name} is not on the path (Debian's package `prometheus` has it)"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return found


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the ``data`` of an answer from its API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"
        ) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the present result of an expression."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the single value of an expression; None if it has none yet."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def query_range(
        self, expression: str, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        """Return the results of an expression between two times, in seconds."""
        found: list[dict[str, Any]] = self.ask(
            "query_range", query=expression, start=f"{start}", end=f"{end}", step=f"{step}"
        )["result"]
        return found


@contextmanager
def prometheus(target: str, directory: Path) -> Iterator[Prometheus]:
    """Scrape ``target`` (host:port) often, with our rules, until the block ends."""
    program, port = tool("prometheus"), free_port()
    config = directory / "prometheus.yml"
    every = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "1s"}
    config.write_text(
        yaml.safe_dump(
            {
                "global": every,
                "rule_files": [str(RULES / "alerts.yml")],
                "scrape_configs": [
                    {"job_name": "reconciler", "static_configs": [{"targets": [target]}]}
                ],
            }
        )
    )
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with running(
        command, ready=lambda: _ready(port), log=directory / "prometheus.log", env={}, cwd=directory
    ):
        yield Prometheus(port)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
