"""Flower's settings, each with its reason. ``celery -A workers flower`` reads this file.

Flower reads it from its working directory, after ``FLOWER_*`` in the environment and before the
command line, so a name that is set here overrides the environment. Where an operator may override
a setting of this file, the file itself reads the environment. Flower reads everything else from
there (``FLOWER_URL_PREFIX``, ``FLOWER_PORT``, ``FLOWER_READ_ONLY``, …).
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from flower.views.monitor import Metrics
from tornado.web import authenticated

from reconciler.flower.install import install
from reconciler.observability.logs import configure_logging

# -- logins


def _logins() -> list[str]:
    """Return the accepted ``user:password`` pairs, at least one: without any, Flower is open."""
    given = os.environ.get("FLOWER_BASIC_AUTH", "")
    pairs = [pair.strip() for pair in given.split(",") if pair.strip()]
    if any(not all(pair.partition(":")) for pair in pairs):
        # Never print the value: it is a secret even if it is malformed.
        sys.stderr.write(
            "reconciler: FLOWER_BASIC_AUTH is invalid: it is user:password, "
            "several of them with commas between\n"
        )
        raise SystemExit(2)
    if pairs:
        return pairs
    password = secrets.token_urlsafe(18)
    sys.stderr.write(
        "reconciler: FLOWER_BASIC_AUTH is not set; for as long as this Flower runs, "
        f"log in as operator with the password {password}\n"
    )
    return [f"operator:{password}"]


if not os.environ.get("FLOWER_AUTH"):
    # Only if no OAuth 2 provider is configured.
    basic_auth = _logins()

# Flower requires no login for /healthcheck and /metrics. /healthcheck only answers OK, and stays
# open for the container's health check. /metrics names workers and tasks, so it requires the login
# here; a scraper can send one (`basic_auth`). `reconciler metrics` serves the backstop's metrics.
if not hasattr(Metrics.get, "__wrapped__"):  # Flower may read this file twice
    Metrics.get = authenticated(Metrics.get)

# -- the tab *Orchestrations*

install()

# -- the list of tasks


def _state_file() -> Path | None:
    """Return the file for the list of tasks; None if its directory is not writable."""
    if os.environ.get("FLOWER_DB"):
        return Path(os.environ["FLOWER_DB"])
    # Never in a directory that others can write to, because Flower unpickles the file.
    state = os.environ.get("XDG_STATE_HOME")
    directory = (Path(state) if state else Path.home() / ".local" / "state") / "reconciler"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return directory / "flower" if os.access(directory, os.W_OK) else None


_state = _state_file()
# Without it, the list of tasks is empty after a restart. In a container with a read-only file
# system, FLOWER_DB names a file on a volume.
persistent = _state is not None
if _state is not None:
    db = str(_state)
# Saved regularly and not only at exit, so that a Flower that was killed keeps its list.
state_save_interval = 10_000
# Each save writes the whole list.
max_tasks = 20_000

# -- display

# How a task ended, what it was about (see its id) and its result fit on a screen. The other columns
# are to the right, and on the page of the task.
tasks_columns = "state,uuid,result,received,runtime,name,args,worker"
natural_time = True
# Containers restart under new names; the old names leave the list after an hour.
purge_offline_workers = 3600

# -- logs

# Flower's own log lines get the format of all other processes. Celery loads the application and
# its settings before it looks for this file.
if (_loaded := sys.modules.get("workers.application")) is not None:
    configure_logging(_loaded.settings)
