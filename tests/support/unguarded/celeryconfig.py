"""As in ``quick``, with the guard of a closed channel (``workers/consumer.py``) taken away again.

So a test can show what it is for; and if a release of kombu mends the defect, that test fails, and
the guard can go.
"""

from __future__ import annotations

import runpy
from pathlib import Path

_quick = runpy.run_path(str(Path(__file__).parents[1] / "quick" / "celeryconfig.py"))
globals().update({name: value for name, value in _quick.items() if not name.startswith("_")})

worker_consumer = "tests.support.unguarded.consumer:UnguardedConsumer"
