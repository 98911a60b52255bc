"""What each worker process holds: made once in it, after the fork, and used by all its tasks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import redis
from celery import signals

from reconciler.composition import build_reconciler
from reconciler.observability.emf import EmfMetrics
from reconciler.observability.metrics import FlushingMetrics
from reconciler.repair.context import Pacer
from reconciler.repair.reconciler import Reconciler
from reconciler.settings import Settings, load_settings
from workers.broker import broker_client, metrics_for
from workers.dedup import DedupKeys
from workers.locks import Locks
from workers.read_allowance import BrokerAllowance
from workers.recoveries import Recoveries
from workers.release_rate import ReleaseRate


@dataclass(frozen=True, slots=True)
class Resources:
    """The reconciler and the broker's parts of one process."""

    settings: Settings
    reconciler: Reconciler
    metrics: FlushingMetrics
    dedup: DedupKeys
    recoveries: Recoveries
    client: redis.Redis


_made: dict[int, Resources] = {}


def process_resources() -> Resources:
    """Return this process's resources, made when they are first asked for.

    Raises:
        SettingsError: a setting is invalid.
    """
    found = _made.get(os.getpid())
    if found is None:
        # A client that a parent made breaks when it is used on both sides of the fork.
        _made.clear()
        found = _made[os.getpid()] = _make(load_settings())
    return found


def _make(settings: Settings) -> Resources:
    client = broker_client(settings)
    metrics = metrics_for(settings, client)
    ceiling = settings.scan_read_units_per_second
    return Resources(
        settings=settings,
        reconciler=build_reconciler(
            settings,
            metrics=metrics,
            pacer=Pacer(ReleaseRate(settings).acquire, Locks(client).lock),
            allowance=BrokerAllowance(client, ceiling) if ceiling is not None else None,
        ),
        metrics=metrics,
        dedup=DedupKeys(client),
        recoveries=Recoveries(client),
        client=client,
    )


@signals.worker_process_init.connect
def _in_each_process(**_: Any) -> None:  # noqa: ANN401 - Celery's
    process_resources()


@signals.worker_ready.connect
def _declare(**_: Any) -> None:  # noqa: ANN401 - Celery's
    """Declare the metrics once for each worker, and not in each of its processes."""
    settings = load_settings()
    if settings.metrics_emf:
        metrics = EmfMetrics(namespace=settings.metrics_namespace)
        metrics.declare(settings)
        metrics.flush()


@signals.worker_process_shutdown.connect
def _flush(**_: Any) -> None:  # noqa: ANN401 - Celery's
    found = _made.get(os.getpid())
    if found is not None:
        found.metrics.flush()
