"""What is scheduled: the Celery application, and thin tasks over ``reconciler.operations``.

``celery -A workers`` asks this package for ``app``. It is made only then: reading what a sweep
left in the broker needs no settings of a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.application import app

__all__ = ["app"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute
    if name == "app":
        from workers.application import app  # noqa: PLC0415 - see above

        return app
    raise AttributeError(name)
