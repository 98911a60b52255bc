"""The benchmarks run, and their ratios and counts are kept.

Units and requests are exact. CPU time is a ratio of two runs of one machine, and has a margin of
five: a loaded machine does not make it fail, and botocore's parser back in the scan does.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import Servers
from tests.support.processes import ROOT

pytestmark = pytest.mark.integration


def test_a_healthy_sweep_keeps_to_the_floor(servers: Servers) -> None:
    servers.endpoint("dynamodb_local")  # skips where it cannot be had
    said = benchmark(
        *("--check", "--share", "--orchestrations", "1500", "--stranded", "0", "--segments", "1")
    )
    assert "9,000 rows" in said


@pytest.mark.workers
def test_a_release_through_celery_keeps_its_counts(servers: Servers) -> None:
    """Requests, messages and broker commands for each release, with its evaluation."""
    servers.endpoint("dynamodb_local")  # skips where it cannot be had
    said = benchmark("storm", "--check-counts", "--children", "60", "1")
    assert "a storm through Celery" in said


def benchmark(*arguments: str) -> str:
    """Run a benchmark, and return what it prints."""
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
