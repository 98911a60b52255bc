"""Deterministic names and ids."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

from ulid import ULID

from reconciler.domain.model import moment

_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
# Neither part may consist of dots only: that would be a path.
_REPO = re.compile(r"(?!\.+/)[A-Za-z0-9._-]+/(?!\.+$)[A-Za-z0-9._-]+")
_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_SLUG_LENGTH = 50
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def valid_idempotency_key(key: str) -> bool:
    """Whether the platform accepts ``key``."""
    return _KEY.fullmatch(key) is not None


def valid_repo(repo: str) -> bool:
    """Whether the platform accepts ``repo`` as a repository name, ``owner/name``."""
    return _REPO.fullmatch(repo) is not None


def derived_ulid(seed: str, at: datetime | None) -> str:
    """Return a deterministic ULID: 26 characters of Crockford base 32.

    The time part is ``at`` (at least the epoch), so that ids sort as the platform's do. The random
    part is a hash of ``seed``.
    """
    milliseconds = max(0, int(((at or _EPOCH) - _EPOCH).total_seconds() * 1000))
    random = hashlib.sha256(seed.encode()).digest()[:10]
    return str(ULID(milliseconds.to_bytes(6) + random))


def task_id_for(idempotency_key: str, child_created_at: str | None) -> str:
    """Return the task id of a release attempt, the same for every releaser.

    So two releasers collide on the task's primary key, even before the index by idempotency key
    shows either task. The key identifies the attempt; ``created_at`` never changes.
    """
    return derived_ulid(idempotency_key, moment(child_created_at))


def event_id_for(task_id: str, event_type: str, at: datetime) -> str:
    """Return the id of an event; ids sort by time within a task."""
    return derived_ulid(f"{task_id}/{event_type}/{at.isoformat()}", at)


def slug(first_line: str) -> str:
    """Return the last part of a branch name: 1 to 50 characters of a-z, 0-9 and ``-``."""
    cut = _NOT_SLUG.sub("-", first_line.lower()).strip("-")[:_SLUG_LENGTH]
    return cut or "task"
