"""Flower on a real broker, and a client for it."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.embedded.process import answers_http, free_port, running
from tests.support.processes import ROOT, Celery

LOGIN = "eva:correct-horse-battery"  # for a Flower that runs for one test


@dataclass(frozen=True)
class Flower:
    """A running Flower. ``address``: without a login; ``log``: its log."""

    address: str
    log: Path

    @property
    def with_login(self) -> str:
        """The address of the first page; with a prefix it ends in a slash."""
        return self.address.replace("://", f"://{LOGIN}@") + "/"

    def get(self, path: str, *, login: str | None = LOGIN) -> tuple[int, str]:
        """Return the status and the body of a path."""
        return self._ask(urllib.request.Request(f"{self.address}{path}"), login)  # noqa: S310 - loopback

    def post(
        self, path: str, *, token: str = "", login: str | None = LOGIN, **headers: str
    ) -> tuple[int, str]:
        """Press a button, with the token of the form and of the cookie; returns status and body."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.address}{path}", f"_xsrf={token}".encode(), headers
        )
        if token:
            request.add_header("Cookie", f"_xsrf={token}")
        return self._ask(request, login)

    @staticmethod
    def _ask(request: urllib.request.Request, login: str | None) -> tuple[int, str]:
        if login is not None:
            token = base64.b64encode(login.encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def workers(self) -> dict[str, Any]:
        """Return the workers that it has heard of."""
        found: dict[str, Any] = json.loads(self.get("/api/workers?status=1")[1] or "{}")
        return found

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return the tasks that it has heard of, by id."""
        found: dict[str, dict[str, Any]] = json.loads(self.get("/api/tasks")[1] or "{}")
        return found


@contextmanager
def flower(
    celery: Celery, name: str = "flower", *, prefix: str = "", read_only: bool = False
) -> Iterator[Flower]:
    """Run one with ``flowerconfig.py`` until the block ends."""
    port = free_port()
    options = [f"--port={port}", "--address=127.0.0.1"]
    log = celery.directory / f"{name}.log"
    environment = {
        **celery.environment,
        "FLOWER_BASIC_AUTH": LOGIN,
        "FLOWER_DB": str(celery.directory / name),
        **({"FLOWER_URL_PREFIX": prefix} if prefix else {}),
        **({"FLOWER_READ_ONLY": "true"} if read_only else {}),
    }
    with running(
        celery.command("flower", *options),
        ready=lambda: answers_http(f"http://127.0.0.1:{port}"),
        log=log,
        env=environment,
        cwd=ROOT,
    ):
        yield Flower(f"http://127.0.0.1:{port}{f'/{prefix}' if prefix else ''}", log)


def token_of(page: str) -> str:
    """Return the token of the first form of a page."""
    found = re.search(r'name="_xsrf" value="([^"]+)"', page)
    assert found is not None
    return found.group(1)
