"""What is scheduled: the Celery application, and thin tasks over ``reconciler.repair``.

``celery -A workers`` asks this package for ``app``. It is made only then: reading what a sweep
left in the broker needs no settings of a worker.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.application import app

__all__ = ["app"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute
    if name == "app":
        _see_project_root()
        from workers.application import app  # noqa: PLC0415 - see above

        return app
    raise AttributeError(name)


def _see_project_root() -> None:
    """Let `celery`, run in the project's root, import what stands there.

    A script's path begins beside the script, and Celery adds the working directory only while it
    looks for this package.
    """
    root = str(Path(__file__).parents[1])
    if root not in sys.path:
        sys.path.insert(0, root)
