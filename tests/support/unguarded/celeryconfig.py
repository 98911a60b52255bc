"""As in ``quick``, but without the guard for a closed channel (``workers/consumer.py``).

So a test can show what the guard is for. If a release of kombu fixes the defect, that test fails,
and the guard is no longer needed.
"""

from __future__ import annotations

import runpy
from pathlib import Path

_quick = runpy.run_path(str(Path(__file__).parents[1] / "quick" / "celeryconfig.py"))
globals().update({name: value for name, value in _quick.items() if not name.startswith("_")})

worker_consumer = "tests.support.unguarded.consumer:UnguardedConsumer"
