"""The server of the scrape endpoint: ``/metrics`` and nothing else, within bounds.

Whoever reaches its port can be slow, greedy or many, and a scrape must be answered all the same:

- One thread serves all connections, and one reads the broker, once for all who ask meanwhile.
- At most ``MAX_CONNECTIONS`` are open. When one more comes, the oldest that is not being answered
  is closed, so clients that keep silent make room for one that asks.
- A request has ``MAX_REQUEST_BYTES`` and no body, and arrives within ``REQUEST_SECONDS``.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application, RequestHandler

MAX_CONNECTIONS = 64
MAX_REQUEST_BYTES = 16 * 1024
REQUEST_SECONDS = 10.0


class ScrapeServer:
    """Serves what ``render`` returns, in a thread, until ``shutdown``.

    ``answering``: the connections that are being answered at the moment.
    """

    def __init__(
        self, render: Callable[[], bytes], content_type: str, host: str, port: int
    ) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
        self._socket.settimeout(0)  # it is the loop that waits
        self.content_type = content_type
        self.answering: set[IOStream] = set()
        self._render = render
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scrape")
        self._rendering: asyncio.Future[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._began = threading.Event()
        # A daemon: whoever serves for ever ends with the process.
        self._thread = threading.Thread(target=self._run, name="scrapes", daemon=True)
        self._thread.start()
        self._began.wait()

    def shutdown(self) -> None:
        """Close every connection and end."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def body(self) -> bytes:
        """Return what ``render`` returns; those who ask while it runs share one answer."""
        if self._rendering is None or self._rendering.done():
            loop = asyncio.get_running_loop()
            self._rendering = loop.run_in_executor(self._pool, self._render)
        # A client that leaves must not take the answer from the others.
        return await asyncio.shield(self._rendering)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        application = Application(
            [("/metrics", _Metrics)],
            scrapes=self,
            # A line for every request would let anybody fill the log.
            log_function=lambda _: None,
        )
        server = _BoundedServer(
            application,
            no_keep_alive=True,
            max_header_size=MAX_REQUEST_BYTES,
            max_buffer_size=MAX_REQUEST_BYTES,
            max_body_size=0,
            idle_connection_timeout=REQUEST_SECONDS,
            body_timeout=REQUEST_SECONDS,
        )
        server.answering = self.answering
        server.add_socket(self._socket)
        self._loop = asyncio.get_running_loop()
        self._began.set()
        await self._stop.wait()
        server.stop()
        await server.close_all_connections()


class _Metrics(RequestHandler):
    """GET /metrics; tornado refuses every other path and method."""

    def prepare(self) -> None:
        """Count the connection among those that are being answered."""
        self._scrapes: ScrapeServer = self.settings["scrapes"]
        self._stream: IOStream = self.request.connection.stream  # type: ignore[union-attr] # HTTP 1
        self._scrapes.answering.add(self._stream)

    def on_finish(self) -> None:
        """Count it no more."""
        self._scrapes.answering.discard(self._stream)

    def on_connection_close(self) -> None:
        """Likewise, where the client left before."""
        self._scrapes.answering.discard(self._stream)

    async def get(self) -> None:
        """Answer with the metrics."""
        body = await self._scrapes.body()
        self.set_header("Content-Type", self._scrapes.content_type)
        self.finish(body)


class _BoundedServer(HTTPServer):
    """An HTTP server with a bound on its connections."""

    answering: set[IOStream]

    def initialize(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - tornado's
        super().initialize(*args, **kwargs)
        # In the order in which they came.
        self._streams: dict[IOStream, None] = {}

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Take a connection; the oldest that is not being answered makes room for it."""
        self._streams = {open_: None for open_ in self._streams if not open_.closed()}
        if len(self._streams) >= MAX_CONNECTIONS:
            silent = (found for found in self._streams if found not in self.answering)
            next(silent, stream).close()
        if stream.closed():
            return
        self._streams[stream] = None
        super().handle_stream(stream, address)
