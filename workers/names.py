"""Names of tasks and queues: fixed by the contract, or read by those who deploy."""

from __future__ import annotations

SWEEP = "reconciler.sweep"
SEGMENT = "reconciler.sweep_segment"
EVALUATE = "reconciler.evaluate_orchestration"
RELEASE = "reconciler.release_child"
DESCRIBE = "reconciler.describe_orchestration"

SWEEP_QUEUE = "sweep"
RELEASE_QUEUE = "release"
BY_HAND_QUEUE = "reconciler:by-hand"
"""What a person waits for: it must not stand behind what a sweep has queued."""

ASKS_PER_INTERVAL = 3
"""How often a sweep is asked for in its interval: what was lost of it is then asked for again."""

MESSAGE_HEADER = "reconciler_message"
"""Stands on every message that this program sends; see ``workers.enqueue`` for what it means."""

MESSAGE_VERSION = 1

DEPLOYMENT_HEADER = "reconciler_deployment"
"""Whose work a message is: its ``Settings.deployment_id``. A worker refuses that of others."""
