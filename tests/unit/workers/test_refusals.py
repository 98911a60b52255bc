"""Dropped messages: each is counted, and it is logged if it is news."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

from structlog.testing import capture_logs

from tests.support.pacing import SleepingClock
from workers.messages import MessageRefusedError, OtherDeploymentError
from workers.refusals import QUIET_SECONDS, Refusals

FOREIGN = OtherDeploymentError("not ours")


class Counting:
    """A broker that accepts counters, and nothing else."""

    def __init__(self) -> None:
        self.counted = 0.0

    def pipeline(self, **_: object) -> Any:
        pipe = MagicMock()
        pipe.__enter__.return_value.hincrbyfloat.side_effect = self._add
        return pipe

    def _add(self, _key: str, _field: str, amount: float) -> None:
        self.counted += amount


def add(refusals: Refusals, client: Counting, error: Exception) -> list[str]:
    """Drop a message; return the kinds of the errors that are logged."""
    with capture_logs() as logs:
        refusals.add(client, error)  # type: ignore[arg-type]
    return [entry["error_kind"] for entry in logs]


def test_another_deployment_is_logged_once_while_active() -> None:
    """It is logged again if its messages come back after a while."""
    clock, client = SleepingClock(), Counting()
    refusals = Refusals(lambda: "ours", clock)
    said = []
    for pause in (0.0, QUIET_SECONDS - 1, QUIET_SECONDS - 1, QUIET_SECONDS):
        clock.sleep(pause)
        said.append(add(refusals, client, FOREIGN))
    assert said == [["other_deployment"], [], [], ["other_deployment"]]
    assert client.counted == len(said)


def test_each_malformed_message_is_logged() -> None:
    client = Counting()
    refusals = Refusals(lambda: "ours", SleepingClock())
    said = [add(refusals, client, MessageRefusedError("too long")) for _ in range(3)]
    assert said == [["malformed_message"]] * 3
    assert client.counted == len(said)


def test_an_unexpected_errors_text_is_not_logged() -> None:
    """It may quote the message."""
    with capture_logs() as logs:
        Refusals(lambda: "ours").add(Counting(), ValueError("secret"))  # type: ignore[arg-type]
    assert [entry["detail"] for entry in logs] == ["ValueError"]
