"""The project's own settings of Celery, but with short waits for tests.

Python finds this file before the real one, and it takes everything but these times from there. So
tests with it check the mechanism; ``test_options.py`` checks that the real times fit each other.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

_real = runpy.run_path(str(Path(__file__).parents[3] / "celeryconfig.py"))
globals().update({name: value for name, value in _real.items() if not name.startswith("_")})

# Longer than a test holds anything, unless the test waits for this timeout itself.
_visible = float(os.environ.get("QUICK_VISIBILITY_SECONDS", "120"))
_waits = {
    "visibility_timeout": _visible,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 0.5,
    "socket_timeout": 2,
    "socket_connect_timeout": 2,
    "health_check_interval": 2,
}
broker_transport_options = {**_real["broker_transport_options"], **_waits}
result_backend_transport_options = {"visibility_timeout": _visible}
redis_socket_timeout = redis_socket_connect_timeout = 2.0
redis_backend_health_check_interval = 2
