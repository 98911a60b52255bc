"""``reconciler tables``: create the platform's tables on a local endpoint."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from reconciler.aws_errors import RAISED, translate
from reconciler.cli.wiring import settings_for_cli
from reconciler.composition import dynamodb_client
from reconciler.demo.sample import strand
from reconciler.errors import UsageError
from reconciler.settings import Settings
from reconciler.tables import create_tables_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_KEEP_SECONDS = 5.0
_LOCAL = ("localhost", "127.0.0.1", "::1")


@click.command()
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="Also accept this host, such as one in a compose file. Never production.",
)
@click.option("--sample", is_flag=True, help="Also strand two orchestrations, to try things on.")
@click.option("--keep", is_flag=True, help="Keep running, and recreate tables that go missing.")
def tables(*, hosts: tuple[str, ...], sample: bool, keep: bool) -> None:
    """Create the tables on a local DynamoDB endpoint; existing ones are left alone."""
    settings = settings_for_cli()
    client = dynamodb_client()
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    if host not in (*_LOCAL, *hosts):
        raise UsageError(f"tables are created only on a local endpoint, and {host} is not one")
    try:
        _create(client, settings, sample=sample, keep=keep)
    except RAISED as error:
        raise translate(error, "creating the tables") from error


def _create(client: DynamoDBClient, settings: Settings, *, sample: bool, keep: bool) -> None:
    create_tables_of(client, settings)
    click.echo(f"the tables exist at {client.meta.endpoint_url}")
    if sample:
        said = [f"stranded {orchestration_id}" for orchestration_id in strand(client, settings)]
        click.echo("\n".join(said or ["they are not empty, so nothing was added"]))
    if keep:
        # The first process of a container ignores SIGTERM unless it handles it. If the emulator
        # does not answer, this process fails, and its container is restarted.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            time.sleep(_KEEP_SECONDS)
            create_tables_of(client, settings)
