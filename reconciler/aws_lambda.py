"""A sweep as a Lambda function, on a schedule: no broker, no container.

Handler: ``reconciler.aws_lambda.handler``. The event may hold ``report``, ``force`` and ``full``,
as the options of ``reconciler sweep --inline``; what else a schedule puts into it is passed over.
What is returned is the sweep's summary. A sweep that the function's time does not suffice for stops
before it is stopped, and says ``complete: false``; the next one goes on with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

from reconciler.composition import build_reconciler
from reconciler.observability.emf import EmfMetrics
from reconciler.observability.logs import configure_logging
from reconciler.repair.reconciler import Reconciler
from reconciler.settings import load_settings
from reconciler.sweeping.cron import run_cron_sweep
from reconciler.sweeping.inline import Hooks, run_inline_sweep

RESERVE_MILLISECONDS = 20_000
"""Kept back for what has been begun: a repair, its retries, and the record of the sweep."""


class LambdaContext(Protocol):
    """What is used of the context that Lambda hands over."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the function may still run."""


@cache
def _reconciler() -> tuple[Reconciler, EmfMetrics | None]:
    """Made when the first event comes, and kept for those that find this process warm."""
    settings = load_settings()
    configure_logging(settings)
    metrics = EmfMetrics(namespace=settings.metrics_namespace) if settings.metrics_emf else None
    return build_reconciler(settings, metrics=metrics), metrics


def handler(event: Mapping[str, Any] | None, context: LambdaContext) -> dict[str, Any]:
    """Sweep, and return the summary.

    Raises:
        SettingsError, AccessError, TableMissingError: an operator's mistake; the invocation fails.
    """
    reconciler, metrics = _reconciler()
    asked = event or {}
    hooks = Hooks(out_of_time=_deadline(context))
    try:
        if asked.get("report") is True:
            return run_inline_sweep(reconciler, report=True, hooks=hooks).to_json()
        swept = run_cron_sweep(
            reconciler,
            holder=f"Lambda request {context.aws_request_id}",
            force=asked.get("force") is True,
            full=asked.get("full") is True,
            hooks=hooks,
        )
        return swept.to_json()
    finally:
        if metrics is not None:
            metrics.flush()


def _deadline(context: LambdaContext) -> Callable[[], bool]:
    """Of a short time a third is kept back, of a long one what is always enough."""
    reserve = min(RESERVE_MILLISECONDS, context.get_remaining_time_in_millis() / 3)
    return lambda: context.get_remaining_time_in_millis() < reserve
