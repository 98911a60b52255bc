"""What the broker holds of orchestrations and sweeps, for the tab."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from reconciler.cli.facts import DAY_SECONDS, Facts
from reconciler.repair.context import count_stuck
from reconciler.repair.counts import Counts
from reconciler.settings import load_settings
from reconciler.sweeping.listing import Entry, list_entries
from reconciler.sweeping.scan_step import Scope
from reconciler.sweeping.state import Overview, SweepState
from workers.broker import broker_client
from workers.broker_records import BrokerRecords
from workers.recoveries import Recoveries


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the broker holds. ``repairs``: those of the last day, the newest first."""

    facts: Facts
    overview: Overview
    entries: list[Entry]
    stuck: Counts
    repairs: list[dict[str, Any]]


@cache
def client() -> Any:  # noqa: ANN401 - redis.Redis: its stubs do not fit a cache
    """Return this process's client of the broker; it gives up after a few seconds."""
    return broker_client(load_settings())


def read() -> Remembered:
    """Read what is stuck, how far coverage reaches, and what was done.

    Raises:
        redis.exceptions.RedisError: the broker is away, or refuses.
    """
    settings = load_settings()
    seen = SweepState(BrokerRecords(client())).overview()
    facts = Facts(
        now=seen.now,
        interval_seconds=settings.sweep_interval_seconds,
        repair_mode=settings.repair_mode,
        covered={scope.value: seen.covered_as_of(scope) for scope in Scope},
        full_scan_interval_seconds=(
            settings.full_scan_interval_seconds if settings.active_index_name else None
        ),
    )
    return Remembered(
        facts=facts,
        overview=seen,
        entries=list_entries(seen.known, seen.now),
        stuck=count_stuck(seen.list_stuck()),
        repairs=Recoveries(client()).list_last(DAY_SECONDS)[::-1],
    )
