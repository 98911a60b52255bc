"""What the sub-commands share: settings, a reconciler, and the broker."""

from __future__ import annotations

import atexit
import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reconciler.observability.emf import EmfMetrics
from reconciler.observability.logs import configure_logging
from reconciler.settings import Settings, load_settings
from reconciler.sweeping.state import SweepState
from workers.broker_records import BrokerRecords

if TYPE_CHECKING:
    import redis

    from reconciler.repair.reconciler import Reconciler

_BROKER_SECONDS = 3.0
_NOTHING = "CRITICAL"
"""The level at which nothing of ours is logged."""


def settings_for_cli(*, logs: bool = False) -> Settings:
    """Read the settings, and send what is to be logged to standard error.

    A command prints what its operator should know, so it logs nothing, unless ``LOG_LEVEL`` asks
    for it. With ``logs`` (a sweep from cron, a service) everything is logged; at a terminal, where
    somebody reads the command's own output, only errors are.

    Raises:
        SettingsError: a setting is invalid.
    """
    settings = load_settings()
    if "LOG_LEVEL" in os.environ:
        level = None
    elif not logs:
        level = _NOTHING
    else:
        level = "ERROR" if sys.stderr.isatty() else None
    configure_logging(settings, level=level)
    return settings


def reconciler_for_cli(settings: Settings, *, logs: bool = False) -> Reconciler:
    """Return a reconciler for this process.

    ``logs``: as for ``settings_for_cli``; with ``METRICS_EMF`` metrics are lines of the log too.

    Raises:
        SettingsError, AccessError: no region or profile, or credentials in part.
    """
    from reconciler.composition import build_reconciler  # noqa: PLC0415 - start-up time

    if not (logs and settings.metrics_emf):
        return build_reconciler(settings)
    # To standard error: standard output is for what was asked.
    metrics = EmfMetrics(sys.stderr, namespace=settings.metrics_namespace)
    atexit.register(metrics.flush)
    return build_reconciler(settings, metrics=metrics)


def broker_for_cli(settings: Settings) -> redis.Redis:
    """Return a client of the broker that gives up soon."""
    import redis  # noqa: PLC0415 - start-up time

    return redis.Redis.from_url(
        settings.celery_broker_url,
        socket_timeout=_BROKER_SECONDS,
        socket_connect_timeout=_BROKER_SECONDS,
    )


def sweep_state(
    settings: Settings, client: redis.Redis, report_id: str | None = None
) -> SweepState:
    """Return the state of the workers' sweeps, or of one report of theirs."""
    return SweepState(BrokerRecords(client, settings.deployment_id, report_id))


@contextmanager
def asking_broker() -> Iterator[None]:
    """Make an error of ours of what redis-py raises in the block.

    Raises:
        BrokerUnavailableError: the broker is away, or refuses.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415 - start-up time

    from workers.enqueue import BrokerUnavailableError  # noqa: PLC0415

    try:
        yield
    except RedisError as error:
        raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error


def operator() -> str:
    """Return who is at the keyboard, for what is kept of a pause."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
