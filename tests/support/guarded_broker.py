"""A broker that requires a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from reconciler.embedded.valkey import valkey_server

PASSWORD = "s3cret-of-the-broker"


@contextmanager
def guarded_broker(directory: Path) -> Iterator[str]:
    """Run one until the block ends; gives its URL with the password in it."""
    with valkey_server(directory, durable=False) as url:
        with redis.Redis.from_url(f"{url}/0") as client:
            client.config_set("requirepass", PASSWORD)
        yield url.replace("://", f"://:{PASSWORD}@")
