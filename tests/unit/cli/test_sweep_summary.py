"""A sweep's summary, as ``reconciler sweep`` prints it for a person."""

from __future__ import annotations

import pytest

from reconciler.cli.commands.sweep import print_summary
from reconciler.operations.scan import Scope
from reconciler.operations.summary import SweepSummary


def printed(capsys: pytest.CaptureFixture[str], coverage: Coverage | None) -> str:
    """Print a summary; None: of workers that say nothing of what it covered."""
    summary = SweepSummary("sweep:1", "repair", complete=True, segments=1, duration_seconds=1.0)
    said = {**summary.to_json(), "rows_scanned": 12, "coverage": coverage}
    if coverage is None:
        del said["coverage"]
    print_summary(said)
    return " ".join(capsys.readouterr().out.split())


def test_what_it_read_is_said_of_each_coverage(capsys: pytest.CaptureFixture[str]) -> None:
    assert "12 rows of" in printed(capsys, Scope.TABLE)
    assert "12 active rows of" in printed(capsys, Scope.ACTIVE)


def test_one_that_workers_of_the_version_before_have_ended_is_shown_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "12 rows of" in printed(capsys, None)
