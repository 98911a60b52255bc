"""The channel between Celery and the broker, without any message."""

from __future__ import annotations

import pytest

from tests.support.hosts import Fleet
from tests.support.processes import Celery

pytestmark = [pytest.mark.integration, pytest.mark.workers]

SHARES = """
import workers.consumer
from workers import app
channel = app.connection_for_write().default_channel
with channel.conn_or_acquire() as one, channel.conn_or_acquire() as another:
    assert one is another
channel._disconnect_pools()
with channel.conn_or_acquire() as fresh:
    assert fresh is not one and fresh.ping()
print("shared")
"""


def test_commands_of_a_channel_share_a_client(
    celery: Celery,
) -> None:
    """Dropping the channel's connections gives it a new client."""
    assert Fleet(celery).run(SHARES) == "shared"
