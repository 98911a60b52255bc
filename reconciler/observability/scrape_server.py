"""The server of the scrape endpoint: only ``/metrics``, with limits.

Scrapes must be answered even if clients are slow, greedy or many:

- One thread serves all connections. Another reads the broker, once for all concurrent requests.
- At most ``MAX_CONNECTIONS`` are open. For another one, the oldest that is not being answered is
  closed, so silent clients make room.
- A request has at most ``MAX_REQUEST_BYTES`` and no body, and arrives within ``REQUEST_SECONDS``.
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
    """Serves the output of ``render``, in a thread, until ``shutdown``.

    ``answering``: the connections that are currently being answered.
    """

    def __init__(
        self, render: Callable[[], bytes], content_type: str, host: str, port: int
    ) -> None:
        """Start to listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
        self._socket.settimeout(0)  # the event loop waits
        self.content_type = content_type
        self.answering: set[IOStream] = set()
        self._render = render
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scrape")
        self._rendering: asyncio.Future[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._began = threading.Event()
        # A daemon thread, so that it ends with the process.
        self._thread = threading.Thread(
            target=asyncio.run, args=[self._serve()], name="scrapes", daemon=True
        )
        self._thread.start()
        self._began.wait()

    def shutdown(self) -> None:
        """Close all connections and stop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def body(self) -> bytes:
        """Return the output of ``render``; concurrent requests share one call."""
        if self._rendering is None or self._rendering.done():
            loop = asyncio.get_running_loop()
            self._rendering = loop.run_in_executor(self._pool, self._render)
        # A client that leaves must not cancel the call for the others.
        return await asyncio.shield(self._rendering)

    async def _serve(self) -> None:
        application = Application(
            [("/metrics", _Metrics)],
            scrapes=self,
            # Do not log requests, or anybody could fill the log.
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

    async def get(self) -> None:
        scrapes: ScrapeServer = self.settings["scrapes"]
        stream: IOStream = self.request.connection.stream  # type: ignore[union-attr] # HTTP 1
        scrapes.answering.add(stream)
        try:
            body = await scrapes.body()
            self.set_header("Content-Type", scrapes.content_type)
            self.finish(body)
        finally:
            scrapes.answering.discard(stream)


class _BoundedServer(HTTPServer):
    """An HTTP server with a limited number of connections."""

    answering: set[IOStream]

    def initialize(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - tornado's
        super().initialize(*args, **kwargs)
        # Ordered, oldest first.
        self._streams: dict[IOStream, None] = {}

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Accept a connection; if needed, close the oldest that is not being answered."""
        self._streams = {open_: None for open_ in self._streams if not open_.closed()}
        if len(self._streams) >= MAX_CONNECTIONS:
            silent = (found for found in self._streams if found not in self.answering)
            next(silent, stream).close()
        if stream.closed():
            return
        self._streams[stream] = None
        super().handle_stream(stream, address)
