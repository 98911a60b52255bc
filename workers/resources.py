"""The resources of a worker process, created once, after the fork, and shared by its tasks."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import redis
from celery import signals

from reconciler.composition import build_reconciler
from reconciler.errors import ReconcilerError
from reconciler.observability.emf import EmfMetrics
from reconciler.observability.metrics import Metrics
from reconciler.observability.outages import Outages
from reconciler.repair.context import Pacer
from reconciler.repair.reconciler import Reconciler
from reconciler.settings import Settings, load_settings
from workers.broker import broker_client, metrics_for
from workers.dedup import DedupKeys
from workers.flusher import Flusher
from workers.locks import Locks
from workers.read_allowance import BrokerAllowance
from workers.recoveries import Recoveries
from workers.release_rate import ReleaseRate

if TYPE_CHECKING:
    from redis.client import Pipeline


@dataclass(frozen=True)
class Resources:
    """The reconciler of one process, and what it uses of the broker.

    ``outbox``: commands whose answers nobody needs; they are sent together when a task ends.
    """

    settings: Settings
    metrics: Metrics
    dedup: DedupKeys
    recoveries: Recoveries
    client: redis.Redis
    outbox: Pipeline
    flusher: Flusher
    outages: Outages = field(default_factory=Outages)

    @cached_property
    def reconciler(self) -> Reconciler:
        """The reconciler, created on first use.

        Raises:
            SettingsError, CredentialsError: no AWS client can be created.
        """
        deployment_id = self.settings.deployment_id
        ceiling = self.settings.scan_read_units_per_second
        locks = Locks(self.client, deployment_id)
        return build_reconciler(
            self.settings,
            metrics=self.metrics,
            pacer=Pacer(ReleaseRate(self.settings).acquire, locks.lock),
            allowance=(
                BrokerAllowance(self.client, deployment_id, ceiling)
                if ceiling is not None
                else None
            ),
            outages=self.outages,
        )

    def forget_clients(self) -> None:
        """Drop the reconciler and its AWS clients; the next use creates new ones."""
        self.__dict__.pop("reconciler", None)


_made: dict[int, Resources] = {}


def process_resources() -> Resources:
    """Return this process's resources, created on first use.

    Raises:
        SettingsError: a setting is invalid.
    """
    found = _made.get(os.getpid())
    if found is None:
        # A client must not be used on both sides of a fork.
        _made.clear()
        settings = load_settings()
        client = broker_client(settings)
        metrics = metrics_for(settings, client)
        outbox = client.pipeline(transaction=False)
        found = _made[os.getpid()] = Resources(
            settings=settings,
            metrics=metrics,
            dedup=DedupKeys(client, settings.deployment_id),
            recoveries=Recoveries(client, settings.deployment_id, outbox),
            client=client,
            outbox=outbox,
            flusher=Flusher(metrics.flush),
        )
    return found


@signals.worker_process_init.connect
def _in_each_process(**_signal: Any) -> None:  # noqa: ANN401 - Celery's
    with suppress(ReconcilerError):  # the first task reports it
        _ = process_resources().reconciler


@signals.worker_ready.connect
def _declare(**_: Any) -> None:  # noqa: ANN401 - Celery's
    """Declare the metrics once per worker, not in each of its processes."""
    settings = load_settings()
    if settings.metrics_emf:
        metrics = EmfMetrics(namespace=settings.metrics_namespace)
        metrics.declare(settings)
        metrics.flush()


@signals.worker_process_shutdown.connect
def _flush(**_: Any) -> None:  # noqa: ANN401 - Celery's
    found = _made.get(os.getpid())
    if found is not None:
        found.flusher.flush()
