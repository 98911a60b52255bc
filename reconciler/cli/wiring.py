"""What the sub-commands share: settings, a reconciler, and the broker."""

from __future__ import annotations

import getpass
import os
import sys
from typing import TYPE_CHECKING

from reconciler.settings import Settings, load_settings

if TYPE_CHECKING:
    import redis

    from reconciler.repair.reconciler import Reconciler

_BROKER_SECONDS = 3.0


def settings_for_cli(*, logs: bool = False) -> Settings:
    """Read the settings, and send logs to standard error.

    A command's own output is what is read, so only errors are logged, unless ``LOG_LEVEL`` asks
    for more; with ``logs`` (a sweep) everything is, but on a terminal.

    Raises:
        SettingsError: a setting is invalid.
    """
    from reconciler.observability.logs import configure_logging  # noqa: PLC0415 - start-up time

    settings = load_settings()
    quiet = sys.stderr.isatty() or not logs
    if quiet and "LOG_LEVEL" not in os.environ:
        configure_logging(settings.model_copy(update={"log_level": "ERROR"}))
    else:
        configure_logging(settings)
    return settings


def reconciler_for_cli(settings: Settings) -> Reconciler:
    """Return a reconciler for this process.

    Raises:
        SettingsError, AccessError: no region or profile, or credentials in part.
    """
    import atexit  # noqa: PLC0415 - start-up time

    from reconciler.composition import build_reconciler  # noqa: PLC0415
    from reconciler.observability.emf import EmfMetrics  # noqa: PLC0415

    if not settings.metrics_emf:
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


def operator() -> str:
    """Return who is at the keyboard, for what is kept of a pause."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
