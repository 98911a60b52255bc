"""Outages of AWS in the log: one line when one begins, one when it is over."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.errors import (
    ConflictError,
    CredentialsError,
    IndexUnavailableError,
    InvalidRequestError,
    ReconcilerError,
    TextRefusedError,
    ThrottledError,
)
from reconciler.observability.outages import QUIET_SECONDS, Outages


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def events(lines: list[Any]) -> list[tuple[str, str]]:
    return [(line["event"], line["error_kind"]) for line in lines]


def test_an_outage_is_logged_once() -> None:
    """However many calls fail."""
    outages = Outages(Clock())
    with capture_logs() as lines:
        for number in range(3000):
            outages.failed("query on T", CredentialsError(f"expired, {number}"))
            outages.failed("scan on T", CredentialsError("expired"))
    assert events(lines) == [("orch.aws.lost", "credentials")]
    assert lines[0]["detail"] == "expired, 0"
    assert "expired" in lines[0]["meaning"]
    assert "renew" in lines[0]["advice"]
    assert lines[0]["log_level"] == "error"


def test_each_error_kind_is_a_separate_outage() -> None:
    outages = Outages(Clock())
    with capture_logs() as lines:
        outages.failed("query on T", CredentialsError("x"))
        outages.failed("query on T/I", IndexUnavailableError("x"))
    assert events(lines) == [
        ("orch.aws.lost", "credentials"),
        ("orch.aws.lost", "index_unavailable"),
    ]


def test_an_outage_ends_after_a_lasting_success() -> None:
    """The operation that failed must succeed again after some time without failures."""
    clock = Clock()
    outages = Outages(clock)
    outages.failed("query on T", CredentialsError("x"))
    clock.now += 10
    outages.failed("query on T", CredentialsError("x"))
    with capture_logs() as lines:
        clock.now += QUIET_SECONDS - 1
        outages.succeeded("query on T")
        clock.now += 1
        outages.succeeded("scan on U")
        assert lines == []
        outages.succeeded("query on T")
        outages.succeeded("query on T")
    assert events(lines) == [("orch.aws.restored", "credentials")]
    assert (lines[0]["failures"], lines[0]["after_seconds"]) == (2, 10.0)
    with capture_logs() as lines:
        outages.failed("query on T", CredentialsError("again"))
    assert events(lines) == [("orch.aws.lost", "credentials")]


def test_a_rare_operation_hides_no_later_outage() -> None:
    """It has not been tried again since it failed, hours ago."""
    clock = Clock()
    outages = Outages(clock)
    outages.failed("describe_table on T", CredentialsError("x"))
    clock.now += 7200
    outages.succeeded("scan on T")
    with capture_logs() as lines:
        for operation in ("scan on T", "query on T", "describe_table on T"):
            outages.failed(operation, CredentialsError("again"))
    assert events(lines) == [("orch.aws.lost", "credentials")]
    with capture_logs() as lines:
        clock.now += QUIET_SECONDS
        outages.succeeded("query on T")
    assert events(lines) == [("orch.aws.restored", "credentials")]
    assert lines[0]["failures"] == 3


def test_each_operation_logs_an_outage_once() -> None:
    """A process may scan in one sweep and evaluate in the next, and so on."""
    clock = Clock()
    outages = Outages(clock)
    with capture_logs() as lines:
        for _ in range(5):
            for operation in ("scan on T", "query on T"):
                outages.failed(operation, CredentialsError("x"))
                clock.now += 100
    assert events(lines) == [("orch.aws.lost", "credentials")] * 2


@pytest.mark.parametrize(
    "error",
    [ThrottledError("x"), ConflictError("x"), InvalidRequestError("x"), TextRefusedError("x")],
)
def test_normal_and_single_item_errors_are_no_outage(error: ReconcilerError) -> None:
    with capture_logs() as lines:
        Outages(Clock()).failed("query on T", error)
    assert lines == []
