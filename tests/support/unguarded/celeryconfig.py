"""As in ``quick``, with the guard of ``workers/application.py`` taken away again.

Read after that module has put it there. So a test can show what it is for; and if a release of
Celery mends the defect, that test fails, and the guard can go.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from kombu.transport import redis as redis_transport

_quick = runpy.run_path(str(Path(__file__).parents[1] / "quick" / "celeryconfig.py"))
globals().update({name: value for name, value in _quick.items() if not name.startswith("_")})

_guarded = redis_transport.Transport.connection_errors
assert AttributeError in _guarded, "the guard was not there to be taken away"
redis_transport.Transport.connection_errors = tuple(
    error for error in _guarded if error is not AttributeError
)
