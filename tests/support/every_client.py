"""A program that tries every client of the broker, configured by the settings alone.

It prints a line for each client that reads the broker's address: ``<client> ok`` or
``<client> <error>``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from flower.utils.broker import Broker
from limits.storage import storage_from_string

from reconciler.cli.wiring import broker_for_cli
from reconciler.settings import load_settings
from workers.application import app
from workers.broker import broker_client

settings = load_settings()


def _transport() -> None:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
        connection.default_channel.client.ping()  # type: ignore[attr-defined] # Redis's has one


def _flower() -> None:
    # As flower.views.BaseHandler.get_broker does.
    broker = Broker(  # type: ignore[no-untyped-call]
        app.connection().as_uri(include_password=True),
        broker_options=app.conf.broker_transport_options,
        broker_use_ssl=app.conf.broker_use_ssl,
    )
    asyncio.run(broker.queues(["sweep"]))  # type: ignore[no-untyped-call]


CLIENTS: dict[str, Callable[[], object]] = {
    "transport": _transport,
    "result backend": app.backend.client.ping,  # type: ignore[attr-defined] # Redis's has one
    "flower": _flower,
    "limits": lambda: storage_from_string(settings.celery_broker_url).get("LIMITS:x"),
    "ours": lambda: broker_client(settings).ping(),
    "command line": lambda: broker_for_cli(settings).ping(),
}

if __name__ == "__main__":
    for name, use in CLIENTS.items():
        try:
            use()
        except Exception as error:  # noqa: BLE001 - the result is whatever it raises
            said = f"{type(error).__name__}: {error}"
            sys.stdout.write(f"{name} {' '.join(said.split())}\n")
        else:
            sys.stdout.write(f"{name} ok\n")
