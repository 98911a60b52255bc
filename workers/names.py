"""Names of tasks, queues and headers."""

from __future__ import annotations

SWEEP = "reconciler.sweep"
SEGMENT = "reconciler.sweep_segment"
EVALUATE = "reconciler.evaluate_orchestration"
RELEASE = "reconciler.release_child"
DESCRIBE = "reconciler.describe_orchestration"

SWEEP_QUEUE = "sweep"
RELEASE_QUEUE = "release"
BY_HAND_QUEUE = "reconciler:by-hand"
"""For work that a person waits for, which must not queue behind a sweep's."""

ASKS_PER_INTERVAL = 3
"""How often a sweep is asked for in its interval, to make up for lost messages."""

MESSAGE_HEADER = "reconciler_message"
"""On every message that this program sends; see ``workers.enqueue``."""

MESSAGE_VERSION = 1

DEPLOYMENT_HEADER = "reconciler_deployment"
"""The sender's ``Settings.deployment_id``. Workers refuse messages of other deployments."""
