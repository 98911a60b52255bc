"""Time limits of tasks in seconds, and why they are in this order."""

from __future__ import annotations

VISIBILITY_TIMEOUT_SECONDS = 180
"""An unacknowledged message is delivered again after this. Longer than any task and any wait of a
message, or work would be done twice."""

TIME_LIMIT_SECONDS = 60
"""A task is killed after this. Shorter than the stop timeout of a deployment (90 s)."""

SOFT_TIME_LIMIT_SECONDS = 50
"""A task is interrupted after this, so that it can record that."""

WORK_SECONDS = 30
"""After this a task begins nothing new. The rest of its time is for the current request and for
recording what was done. So only a task that hangs reaches the soft limit, whose exception botocore
may swallow while it retries."""

MAX_WAIT_SECONDS = 120
"""How far ahead a message's ``eta`` may be."""

WORKER_LOST_COUNTDOWN_SECONDS = 2
"""How long the work of a lost worker waits. Celery's default equals the visibility timeout, so the
message would be delivered twice, and late."""
