"""Makes what the sub-commands share: settings, a reconciler and a broker client."""

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
"""The level at which we log nothing."""


def settings_for_cli(*, logs: bool = False) -> Settings:
    """Read the settings, and configure logging to standard error.

    Commands print what their operator should know, so they log nothing unless ``LOG_LEVEL`` is set.
    With ``logs`` (a sweep from cron, a service) everything is logged, but at a terminal, where
    somebody reads the command's output, only errors.

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

    ``logs``: as for ``settings_for_cli``; with ``METRICS_EMF`` it also logs metrics.

    Raises:
        SettingsError, AccessError: no region or profile, or incomplete credentials.
    """
    from reconciler.composition import build_reconciler  # noqa: PLC0415 - start-up time

    if not (logs and settings.metrics_emf):
        return build_reconciler(settings)
    # Standard output is for results.
    metrics = EmfMetrics(sys.stderr, namespace=settings.metrics_namespace)
    atexit.register(metrics.flush)
    return build_reconciler(settings, metrics=metrics)


def broker_for_cli(settings: Settings) -> redis.Redis:
    """Return a client of the broker with short timeouts."""
    import redis  # noqa: PLC0415 - start-up time

    return redis.Redis.from_url(
        settings.celery_broker_url,
        socket_timeout=_BROKER_SECONDS,
        socket_connect_timeout=_BROKER_SECONDS,
    )


def sweep_state(
    settings: Settings, client: redis.Redis, report_id: str | None = None
) -> SweepState:
    """Return the state of the workers' sweeps, or of one of their reports."""
    return SweepState(BrokerRecords(client, settings.deployment_id, report_id))


@contextmanager
def asking_broker(instead: str = "") -> Iterator[None]:
    """Translate the errors of redis-py in the block; ``instead``: what needs no broker.

    Raises:
        BrokerUnavailableError: the broker is away, or refuses.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415 - start-up time

    from workers.enqueue import BrokerUnavailableError  # noqa: PLC0415

    try:
        yield
    except (RedisError, BrokerUnavailableError) as error:
        known = isinstance(error, BrokerUnavailableError)
        said = str(error) if known else f"the broker cannot be reached: {error}"
        way = f"; {instead} needs none" if instead else ""
        raise BrokerUnavailableError(said.rstrip(".") + way) from error


def operator() -> str:
    """Return the name of the user, to be recorded in a pause."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
