"""The benchmark runs, and a sweep in which nothing is wrong keeps its ratios to the floor.

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
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--check", "--share"),
            *("--orchestrations", "300", "--stranded", "0", "--segments", "1"),
        ],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1,800 rows" in done.stdout
