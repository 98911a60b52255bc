"""The Celery application, with thin tasks over ``reconciler.sweeping``.

``celery -A workers`` looks for ``app`` here. It is created only on access, because other modules of
this package need no worker settings.
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
        # A script's path begins at the script's folder, and Celery adds the working directory only
        # while it looks for this package.
        root = str(Path(__file__).parents[1])
        if root not in sys.path:
            sys.path.insert(0, root)
        from workers.application import app  # noqa: PLC0415 - see above

        return app
    raise AttributeError(name)
