"""The project's own settings of Celery, with the waits of a test.

Found before the real file, from which everything but these times is taken: what is proved with
them is the mechanism, and ``test_delivery.py`` holds the real times to each other.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

_real = runpy.run_path(str(Path(__file__).parents[3] / "celeryconfig.py"))
globals().update({name: value for name, value in _real.items() if not name.startswith("_")})

# Longer than anything that a test holds up, unless it waits for just this to be over.
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
