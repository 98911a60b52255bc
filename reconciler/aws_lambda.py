"""A sweep as a Lambda function on a schedule, without a broker.

Handler: ``reconciler.aws_lambda.handler``. The event may contain ``report``, ``force`` and
``full``, with the meaning of those options of ``reconciler sweep --inline``; other fields are
ignored. The handler returns the sweep's summary. If the time runs out, the sweep stops early and
returns ``complete: false``, and the next one goes on with the rest.
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
"""Reserved for the current repair, its retries, and recording the sweep."""


class LambdaContext(Protocol):
    """The parts of Lambda's context that we use."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the function may still run, in milliseconds."""


@cache
def _reconciler() -> tuple[Reconciler, EmfMetrics | None]:
    settings = load_settings()
    configure_logging(settings)
    metrics = EmfMetrics(namespace=settings.metrics_namespace) if settings.metrics_emf else None
    return build_reconciler(settings, metrics=metrics), metrics


def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """Sweep, and return the summary.

    Raises:
        SettingsError, AccessError, TableMissingError: an operator's mistake; the invocation fails.
    """
    reconciler, metrics = _reconciler()
    # Any other event has no options.
    asked = event if isinstance(event, Mapping) else {}
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
    """Return a check of the remaining time, with a reserve of at most a third of it."""
    reserve = min(RESERVE_MILLISECONDS, context.get_remaining_time_in_millis() / 3)
    return lambda: context.get_remaining_time_in_millis() < reserve
