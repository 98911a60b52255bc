"""A DynamoDB and a broker to try things on: ``make local``, until Ctrl-C.

Runs an empty DynamoDB Local and an empty Valkey on free ports of loopback, and writes their
settings to a file for a shell to read. Their data is lost when they end.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from reconciler.embedded.process import EmbeddedServerError
from reconciler.embedded.valkey import valkey_server
from tests.support.dynamodb_local import dynamodb_local


@contextlib.contextmanager
def playground(exports: Path) -> Iterator[None]:
    """Run both during the block, with their settings in ``exports``.

    Raises:
        EmbeddedServerError: one of them is unavailable here.
    """
    with (
        tempfile.TemporaryDirectory(prefix="reconciler-local-") as scratch,
        dynamodb_local(Path(scratch)) as endpoint,
        valkey_server(Path(scratch)) as broker,
    ):
        settings = {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
            "ORCHESTRATION_TABLE_NAME": "OrchestrationTable",
            "TASK_TABLE_NAME": "TaskTable",
            "TASK_EVENTS_TABLE_NAME": "TaskEventsTable",
            "USER_CONCURRENCY_TABLE_NAME": "UserConcurrencyTable",
            "CELERY_BROKER_URL": f"{broker}/0",
            "CELERY_RESULT_BACKEND": f"{broker}/1",
        }
        exports.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"export {name}='{value}'\n" for name, value in settings.items())
        exports.write_text("".join(lines), encoding="utf-8")
        try:
            yield
        finally:
            exports.unlink(missing_ok=True)


def main() -> None:
    """Run both servers; the entry point."""
    parser = argparse.ArgumentParser(description="DynamoDB Local and Valkey, to try things on")
    parser.add_argument("--exports", type=Path, default=Path(".cache/local.env"))
    exports: Path = parser.parse_args().exports
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    try:
        with playground(exports), contextlib.suppress(KeyboardInterrupt):
            sys.stdout.write(
                f"DynamoDB Local and Valkey run. In another shell: `. {exports}`\n"
                "Ctrl-C ends both and deletes their data\n"
            )
            sys.stdout.flush()
            over.wait()
    except EmbeddedServerError as error:
        sys.stderr.write(f"reconciler: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
