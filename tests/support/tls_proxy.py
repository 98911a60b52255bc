"""A TLS front for a plain server, with a certificate that we make.

The embedded Valkey is built without TLS, so the front ends the TLS and passes the bytes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class TlsFront:
    """Its port, and the authority that signed its certificate."""

    port: int
    authority: Path


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(
    context: ssl.SSLContext,
    behind: int,
    started: asyncio.Future[int],
    ended: asyncio.Event,
) -> None:
    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", behind)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, their_writer), _pump(their_reader, writer))

    server = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=context)
    started.set_result(server.sockets[0].getsockname()[1])
    await ended.wait()
    server.close()


@contextmanager
def tls_front(directory: Path, behind: int, *, name: str = "localhost") -> Iterator[TlsFront]:
    """Serve TLS in front of the plain port ``behind``, with a certificate for ``name``."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    file = directory / f"authority-of-{name}.pem"
    authority.cert_pem.write_to_path(file)
    loop = asyncio.new_event_loop()
    started: asyncio.Future[int] = loop.create_future()
    ended = asyncio.Event()
    came_up = threading.Event()
    started.add_done_callback(lambda _: came_up.set())

    def run() -> None:
        loop.run_until_complete(_serve(context, behind, started, ended))
        # End the connections of the remaining clients.
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=run, name="tls front")
    thread.start()
    came_up.wait()
    try:
        yield TlsFront(started.result(), file)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
