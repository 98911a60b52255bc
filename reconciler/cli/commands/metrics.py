"""``reconciler metrics``: the metrics of the workers, for Prometheus to scrape."""

from __future__ import annotations

import signal
import sys

import click

from reconciler.cli.wiring import broker_for_cli, settings_for_cli
from reconciler.errors import UsageError
from reconciler.observability.exporter import serve_for_ever


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9464, show_default=True, type=click.IntRange(1, 65_535))
def metrics(*, host: str, port: int) -> None:
    """Serve the metrics for Prometheus to scrape, at /metrics."""
    settings = settings_for_cli(logs=True)
    client = broker_for_cli(settings)
    # The first process of a container ignores SIGTERM unless it handles it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    click.echo(f"serving http://{host}:{port}/metrics", err=True)
    try:
        serve_for_ever(client, settings, host, port)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}") from error
