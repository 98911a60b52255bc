"""What Flower's process asks of the broker. Everything here blocks, for seconds at most."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from reconciler.cli.facts import DAY_SECONDS, Facts
from reconciler.repair.context import count_stuck
from reconciler.repair.counts import Counts
from reconciler.settings import Settings, load_settings
from reconciler.sweeping.listing import Entry, list_entries
from reconciler.sweeping.scan_step import Scope
from reconciler.sweeping.state import Sweep, SweepState
from workers.application import app
from workers.broker import broker_client
from workers.broker_records import BrokerRecords
from workers.enqueue import submit
from workers.names import DESCRIBE
from workers.recoveries import Recoveries
from workers.replies import new_token, take

MAX_SWEEPS = 5
MAX_REPAIRS = 20


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the broker holds, as of ``facts.now``.

    ``sweeps``: the summaries of the last ones, the newest first. ``repairs``: the latest of the
    last day, the newest first; ``repaired``: how many there were.
    """

    facts: Facts
    entries: list[Entry]
    stuck: Counts
    sweeps: list[dict[str, Any]]
    at_work: tuple[Sweep, ...]
    repairs: list[dict[str, Any]]
    repaired: int


@cache
def _settings() -> Settings:
    return load_settings()


@cache
def _client() -> Any:  # noqa: ANN401 - redis.Redis: its stubs do not fit a cache
    return broker_client(_settings())


def read() -> Remembered:
    """Read what is stuck, how far coverage reaches, and what was done.

    Raises:
        redis.exceptions.RedisError: the broker is away, or refuses.
    """
    settings = _settings()
    seen = SweepState(BrokerRecords(_client())).overview()
    repairs = Recoveries(_client()).list_since(time.time() - DAY_SECONDS)
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
        entries=list_entries(seen.known, seen.now),
        stuck=count_stuck(seen.list_stuck()),
        sweeps=[dict(summary) for summary in reversed(seen.list_ended()[-MAX_SWEEPS:])],
        at_work=seen.at_work(),
        repairs=repairs[: -MAX_REPAIRS - 1 : -1],
        repaired=len(repairs),
    )


def ask(orchestration_id: str) -> str:
    """Ask the workers to describe an orchestration; returns the token of their answer.

    Raises:
        BrokerUnavailableError: the broker is away, or refuses.
    """
    token = new_token()
    send(DESCRIBE, f"describe:{orchestration_id}", orchestration_id, token)
    return token


def answer(token: str) -> dict[str, Any] | None:
    """Return the answer, once; None while there is none.

    Raises:
        redis.exceptions.RedisError: the broker is away, or refuses.
    """
    return take(_client(), token)


send = partial(submit, app)
"""Sends a task by hand; see there."""
