"""Messages that are dropped: counted each, and said as often as it is news."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

from structlog.testing import capture_logs

from tests.support.pacing import SleepingClock
from workers.messages import MessageRefusedError, OtherDeploymentError
from workers.refusals import QUIET_SECONDS, Refusals

FOREIGN = OtherDeploymentError("not ours")


class Counting:
    """A broker that is told of counters, and of nothing else."""

    def __init__(self) -> None:
        self.counted = 0.0

    def pipeline(self, **_: object) -> Any:
        pipe = MagicMock()
        pipe.__enter__.return_value.hincrbyfloat.side_effect = self._add
        return pipe

    def _add(self, _key: str, _field: str, amount: float) -> None:
        self.counted += amount


def add(refusals: Refusals, client: Counting, error: Exception) -> list[str]:
    """Drop a message; returns the kinds of what is logged of it."""
    with capture_logs() as logs:
        refusals.add(client, error)  # type: ignore[arg-type]
    return [entry["error_kind"] for entry in logs]


def test_another_deployment_is_said_once_while_its_messages_come() -> None:
    clock, client = SleepingClock(), Counting()
    refusals = Refusals(lambda: "ours", clock)
    said = []
    for pause in (0.0, QUIET_SECONDS - 1, QUIET_SECONDS - 1, QUIET_SECONDS):
        clock.sleep(pause)
        said.append(add(refusals, client, FOREIGN))
    assert said == [["other_deployment"], [], [], ["other_deployment"]]
    assert client.counted == len(said)


def test_what_is_malformed_is_said_each_time() -> None:
    client = Counting()
    refusals = Refusals(lambda: "ours", SleepingClock())
    said = [add(refusals, client, MessageRefusedError("too long")) for _ in range(3)]
    assert said == [["malformed_message"]] * 3
    assert client.counted == len(said)


def test_the_text_of_an_unexpected_error_is_not_repeated() -> None:
    """It may quote the message."""
    with capture_logs() as logs:
        Refusals(lambda: "ours").add(Counting(), ValueError("secret"))  # type: ignore[arg-type]
    assert [entry["detail"] for entry in logs] == ["ValueError"]
