"""Counts conflicts while many workers release siblings at once.

Every release of a fan-out checks the same predecessor, and DynamoDB refuses a transaction that
conflicts with another on a row. A lock in the broker makes workers release siblings one after the
other. This measures releases with the lock and without it. The workers are threads, each with its
own clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

import redis

from benchmarks.fans import fan_out, seed_shape
from benchmarks.metering import Contention, Meter, MeteredSession
from benchmarks.ours import settings_of
from benchmarks.place import Place, fresh_place
from reconciler.composition import build_reconciler
from reconciler.embedded.valkey import valkey_server
from reconciler.errors import ConflictError
from reconciler.repair.context import Pacer
from workers.locks import Locks

HELD_SECONDS = 0.01
"""About how long DynamoDB holds a row: two rounds between its nodes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``given_up``: releases that conflicted at every attempt, and are tried again later."""

    workers: int
    locked: bool
    releases: int
    transactions: int
    conflicts: int
    given_up: int

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as a line of the record."""
        return {
            name: getattr(self, name)
            for name in ("workers", "locked", "releases", "transactions", "conflicts", "given_up")
        }


def run(children: int, workers: int, *, locked: bool) -> Outcome:
    """Release all children of a fan-out with ``workers`` workers."""
    contention = Contention(HELD_SECONDS)
    left: SimpleQueue[str] = SimpleQueue()
    for number in range(children):
        left.put(f"c{number:05}")
    given_up: list[str] = []
    released: list[str] = []

    with fresh_place() as place, _broker() as broker:
        seed_shape(place, fan_out(children))

        def work(_: int) -> None:
            settings = settings_of(
                place, celery_broker_url=broker, release_rate_per_minute=1_000_000
            )
            session = ContendedSession(place, contention)
            pacer = Pacer()
            if locked:
                pacer = Pacer(lock=Locks(redis.Redis.from_url(broker), settings.deployment_id).lock)
            reconciler = build_reconciler(settings, session=session, pacer=pacer)
            while True:
                try:
                    key = left.get_nowait()
                except Empty:
                    return
                try:
                    done = reconciler.release("orch_fan", key, sweep_id="s", depends_on=("a",))
                    released.append(done.outcome)
                except ConflictError:
                    given_up.append(key)
                    left.put(key)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, range(workers)))
    if released != ["released"] * children:
        raise RuntimeError(f"of {children}: {sorted(set(released))}")
    return Outcome(workers, locked, children, contention.sent, contention.conflicts, len(given_up))


class ContendedSession(MeteredSession):
    """A session whose transactions can conflict with those of others."""

    def __init__(self, place: Place, contention: Contention) -> None:
        super().__init__(place.session(), Meter())
        self._contention = contention

    def client(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - boto3's
        """Make a client."""
        client = super().client(*args, **kwargs)
        if client.meta.service_model.service_name == "dynamodb":
            self._contention.attach(client)
        return client


@contextmanager
def _broker() -> Iterator[str]:
    with (
        TemporaryDirectory(prefix="benchmark-") as directory,
        valkey_server(Path(directory)) as url,
    ):
        yield f"{url}/0"
