"""Reads the state of sweeps from the broker for the tab."""

from __future__ import annotations

from functools import cache
from typing import Any

from reconciler.cli.status import DAY_SECONDS, Status, status_of
from reconciler.cli.wiring import sweep_state
from reconciler.settings import load_settings
from workers.broker import broker_client
from workers.recoveries import Recoveries


@cache
def client() -> Any:  # noqa: ANN401 - redis.Redis: its stubs do not fit a cache
    """Return this process's client of the broker, with short timeouts."""
    return broker_client(load_settings())


def read() -> Status:
    """Return the status, as far as the broker knows it.

    Raises:
        redis.exceptions.RedisError: the broker is away, or refuses.
    """
    settings = load_settings()
    seen = sweep_state(settings, client()).overview()
    recoveries = Recoveries(client(), settings.deployment_id).list_last(DAY_SECONDS)
    return status_of(settings, seen.now, seen=seen, recoveries=recoveries)
