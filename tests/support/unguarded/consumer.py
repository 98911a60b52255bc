"""The worker's consumer, with kombu's own answer to a closed channel."""

from __future__ import annotations

from workers.consumer import GuardedChannel, GuardedConsumer

del GuardedChannel._connparams


class UnguardedConsumer(GuardedConsumer):
    """The consumer that ``celeryconfig.py`` in this directory names."""
