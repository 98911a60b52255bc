"""How long anything of a task may take, in seconds: what is below what, and why."""

from __future__ import annotations

VISIBILITY_TIMEOUT_SECONDS = 180
"""A message that is not acknowledged for so long is delivered again. Longer than a task and than
every wait of a message, or work would be done twice."""

TIME_LIMIT_SECONDS = 60
"""A task is killed after this. Below the stop timeout of a deployment (90 s), too."""

SOFT_TIME_LIMIT_SECONDS = 50
"""A task is interrupted after this, to record that it used up its time."""

WORK_SECONDS = 30
"""After this a task begins nothing else. The rest of its time is for the request that is under way
and for recording what was done. So the soft limit, whose exception botocore may swallow while it
retries, is met only by a task that is stuck."""

MAX_WAIT_SECONDS = 120
"""How far ahead a message's ``eta`` may be."""

MAX_COUNTDOWN_SECONDS = 20.0
"""How long our own messages wait at most before another try."""

WORKER_LOST_COUNTDOWN_SECONDS = 2
"""How long work of a lost worker waits. Celery's default of three minutes is the visibility
timeout: the message would be delivered twice, and the work would wait."""
