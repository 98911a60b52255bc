"""What the broker holds of orchestrations and sweeps, for the tab."""

from __future__ import annotations

from functools import cache
from typing import Any

from reconciler.cli.status import DAY_SECONDS, Status
from reconciler.settings import load_settings
from reconciler.sweeping.state import SweepState
from workers.broker import broker_client
from workers.broker_records import BrokerRecords
from workers.recoveries import Recoveries


@cache
def client() -> Any:  # noqa: ANN401 - redis.Redis: its stubs do not fit a cache
    """Return this process's client of the broker; it gives up after a few seconds."""
    return broker_client(load_settings())


def read() -> Status:
    """Return what ``reconciler status`` goes by, as far as the broker knows it.

    Raises:
        redis.exceptions.RedisError: the broker is away, or refuses.
    """
    settings = load_settings()
    seen = SweepState(BrokerRecords(client(), settings.deployment_id)).overview()
    return Status(
        now=seen.now,
        interval_seconds=settings.sweep_interval_seconds,
        repair_mode=settings.repair_mode,
        full_scan_interval_seconds=(
            settings.full_scan_interval_seconds if settings.active_index_name else None
        ),
        seen=seen,
        recoveries=Recoveries(client(), settings.deployment_id).list_last(DAY_SECONDS),
    )
