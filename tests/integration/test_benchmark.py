"""The benchmarks run and keep their ratios and counts.

Units and requests are exact. CPU time is a ratio of two runs on one machine, with a margin of five:
a loaded machine does not make it fail, but botocore's parser in the scan would.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import Servers
from tests.support.processes import ROOT

pytestmark = pytest.mark.integration


def test_a_healthy_sweep_keeps_its_costs(servers: Servers) -> None:
    servers.endpoint("dynamodb_local")  # skips if it is not available
    said = benchmark(
        *("--check", "--share", "--orchestrations", "1500", "--stranded", "0", "--segments", "1")
    )
    assert "9,000 rows" in said


@pytest.mark.workers
def test_a_release_through_celery_keeps_its_counts(servers: Servers) -> None:
    """It counts requests, messages and broker commands of a release with its evaluation."""
    servers.endpoint("dynamodb_local")  # skips if it is not available
    said = benchmark("storm", "--check-counts", "--children", "60", "1")
    assert "a storm: Celery and a plain program" in said


def benchmark(*arguments: str) -> str:
    """Run a benchmark and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
