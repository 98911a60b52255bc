"""Names of tasks and queues: fixed by the contract, or read by those who deploy."""

from __future__ import annotations

SWEEP = "reconciler.sweep"
SEGMENT = "reconciler.sweep_segment"
ACTIVE = "reconciler.sweep_active"
"""A step that goes by an index. A name of its own: an older worker would read the whole segment."""

EVALUATE = "reconciler.evaluate_orchestration"
RELEASE = "reconciler.release_child"

SWEEP_QUEUE = "sweep"
FULL_QUEUE = "sweep-full"
RELEASE_QUEUE = "release"

MESSAGE_HEADER = "reconciler_message"
"""Stands on every message that this program sends; see ``workers.enqueue`` for what it means."""

MESSAGE_VERSION = 1
