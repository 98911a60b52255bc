"""A broker that can be stopped, killed, frozen and emptied, and a relay to it that can go deaf."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from reconciler.embedded import valkey
from reconciler.embedded.process import free_port, running


class Broker:
    """A Valkey server that keeps its port whatever happens to its process."""

    def __init__(self, directory: Path, *options: str) -> None:
        """Keep its data in ``directory``; ``options`` are given at each start."""
        self.directory = directory
        self.options = options
        self.port = free_port()
        self.url = f"redis://{valkey.HOST}:{self.port}"
        self._stack = ExitStack()
        self._pid = 0

    @property
    def client(self) -> redis.Redis:
        """A client of the database with Celery's queues."""
        return redis.Redis.from_url(f"{self.url}/0")

    def start(self, *options: str, loaded: bool = True) -> None:
        """Start it on its present data; with ``loaded``, wait until it has read them."""
        process = self._stack.enter_context(
            running(
                [*valkey.command(self.directory, self.port), *self.options, *options],
                ready=self.loaded if loaded else lambda: True,
                log=self.directory / "valkey.log",
            )
        )
        self._pid = process.pid

    def loaded(self) -> bool:
        """Whether it answers and has read all its data."""
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """Stop it as a deployment would; it keeps its data. Safe to call twice."""
        self._stack.close()

    def kill(self) -> None:
        """End it at once; what was not written to disk is lost."""
        os.kill(self._pid, signal.SIGKILL)
        self.stop()

    def empty(self) -> None:
        """Delete the data of a stopped broker, as if it had no persistence."""
        shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)

    def freeze(self) -> None:
        """Let it accept connections but answer nothing."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it continue."""
        os.kill(self._pid, signal.SIGCONT)

    def drop_clients(self) -> int:
        """Close the connections of all clients; returns how many there were."""
        dropped: Any = self.client.client_kill_filter(_type="normal", skipme=True)
        return int(dropped)


@contextmanager
def broker_of_its_own(directory: Path, *options: str) -> Iterator[Broker]:
    """A running broker for one test."""
    directory.mkdir(exist_ok=True)
    found = Broker(directory, *options)
    found.start()
    try:
        yield found
    finally:
        found.stop()


class Relay:
    """Passes bytes to a port and back, until it goes deaf.

    Then it keeps the existing connections but drops what the server sends, and neither side
    notices: a half-open connection, as a lost NAT entry or a failover leaves it. New connections
    work.
    """

    def __init__(self, port: int) -> None:
        """Pass on to ``port`` of the loopback interface."""
        self._target = port
        self._listener = socket.create_server((valkey.HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._deaf: threading.Event = threading.Event()
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.sources: list[tuple[float, int]] = []
        """The relay's own ports towards the server, and since when (epoch seconds)."""

    def go_deaf(self) -> None:
        """Turn every existing connection into a half-open one."""
        with self._lock:
            self._deaf.set()
            self._deaf = threading.Event()

    def serve(self) -> None:
        """Accept until closed."""
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection((valkey.HOST, self._target))
            self.sources.append((time.time(), far.getsockname()[1]))
            with self._lock:
                self._open += [near, far]
                deaf = self._deaf
            for source, target, back in ((near, far, False), (far, near, True)):
                threading.Thread(
                    target=self._pass, args=(source, target, deaf if back else None), daemon=True
                ).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, deaf: threading.Event | None) -> None:
        with suppress(OSError):
            while said := source.recv(65536):
                if deaf is None or not deaf.is_set():
                    target.sendall(said)
            if deaf is None or not deaf.is_set():
                target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close everything."""
        # Only a shutdown wakes a thread that waits to accept.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()


@contextlib.contextmanager
def relay_to(port: int) -> Iterator[Relay]:
    """Serve on loopback until the block ends."""
    relay = Relay(port)
    thread = threading.Thread(target=relay.serve, name="relay", daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.close()
        thread.join()
