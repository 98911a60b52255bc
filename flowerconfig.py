"""Settings of Flower, each with its reason. ``celery -A workers flower`` finds this file by itself.

Flower reads it from the directory that it is started in, after ``FLOWER_*`` of the environment and
before its command line: a name that is set here beats the environment. So what an operator may
set is read from the environment here, and everything else (``FLOWER_URL_PREFIX``, ``FLOWER_PORT``,
``FLOWER_READ_ONLY``, …) is left to it.
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

# -- who may look, and who may send tasks


def _logins() -> list[str]:
    """Return the accepted ``user:password`` pairs; never none, for without any Flower is open."""
    given = os.environ.get("FLOWER_BASIC_AUTH", "")
    pairs = [pair.strip() for pair in given.split(",") if pair.strip()]
    if any(not all(pair.partition(":")) for pair in pairs):
        # Without the value: it is a secret, even where it is not well formed.
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
    # Unless a provider (OAuth 2) has been set up instead.
    basic_auth = _logins()

# Flower leaves two addresses open whatever the login: /healthcheck, which says OK and nothing else,
# and stays open for the container's health check; and /metrics, which names workers and tasks, and
# asks for the login here. A scraper has one (`basic_auth`); what the backstop itself counts is
# served by `reconciler metrics`.
if not hasattr(Metrics.get, "__wrapped__"):  # this file may be read twice
    Metrics.get = authenticated(Metrics.get)

# -- the tab *Orchestrations*

install()

# -- what is kept


def _state_file() -> Path | None:
    """Return where the list of tasks is kept; None where nothing may be written."""
    if os.environ.get("FLOWER_DB"):
        return Path(os.environ["FLOWER_DB"])
    # Not in a directory that others can write to: it is read back by unpickling.
    state = os.environ.get("XDG_STATE_HOME")
    directory = (Path(state) if state else Path.home() / ".local" / "state") / "reconciler"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return directory / "flower" if os.access(directory, os.W_OK) else None


_state = _state_file()
# Without it the list of tasks is empty after a restart; in a container with a read-only file
# system, FLOWER_DB names a place on a volume.
persistent = _state is not None
if _state is not None:
    db = str(_state)
# Saved as it goes and not only at the end: a Flower that was killed has its list too.
state_save_interval = 10_000
# The whole list is written each time.
max_tasks = 20_000

# -- what is shown

# How it ended, what it was about (the id says it all) and what came of it, at a glance and within
# the width of a screen; the rest is to the right, and on the page of the task.
tasks_columns = "state,uuid,result,received,runtime,name,args,worker"
natural_time = True
# Containers come back under new names; the old ones go from the list after an hour.
purge_offline_workers = 3600

# -- what it says

# Its own lines too are log lines, in the form that all processes here have. Celery has loaded the
# application, and with it the settings, before it looks for this file.
if (_loaded := sys.modules.get("workers.application")) is not None:
    configure_logging(_loaded.settings)
