"""RepoTable: whether a repo is onboarded, and its cap on approvals. Read only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.domain.model import Item
from reconciler.domain.task import DEFAULT_APPROVAL_GATE_CAP
from reconciler.errors import RepoUnusableError
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.items import number, plain, text

CACHE_SECONDS = 30.0
_MIN_CAP, _MAX_CAP = 1, 500


@dataclass(frozen=True, slots=True)
class Repo:
    """What a release needs to know of a repo."""

    onboarded: bool
    status: str
    approval_gate_cap: int


ANY_REPO = Repo(onboarded=True, status="active", approval_gate_cap=DEFAULT_APPROVAL_GATE_CAP)
"""Without a RepoTable, every repo counts as onboarded."""


class RepoStore:
    """RepoTable, each repo read at most once in ``CACHE_SECONDS``."""

    def __init__(
        self,
        dynamodb: DynamoDB,
        table: str | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._monotonic = monotonic
        self._cached: dict[str, tuple[float, Repo]] = {}

    def read(self, repo: str) -> Repo:
        """Return the repo; without a row it is not onboarded.

        Raises:
            RepoUnusableError: it is onboarded, but its ``approval_gate_cap`` is not a whole number
                from 1 to 500.
        """
        if self._table is None:
            return ANY_REPO
        now = self._monotonic()
        cached = self._cached.get(repo)
        if cached is None or now - cached[0] >= CACHE_SECONDS:
            cached = (now, self._fetch(self._table, repo))
            self._cached[repo] = cached
        return cached[1]

    def _fetch(self, table: str, repo: str) -> Repo:
        item = self._dynamodb.get(table, {"repo": {"S": repo}}) or {}
        status = text(item, "status") or "absent"
        onboarded = status == "active"
        cap = _approval_gate_cap(repo, item) if onboarded else DEFAULT_APPROVAL_GATE_CAP
        return Repo(onboarded, status, cap)


def _approval_gate_cap(repo: str, item: Item) -> int:
    if "approval_gate_cap" not in item:
        return DEFAULT_APPROVAL_GATE_CAP
    cap = number(item, "approval_gate_cap")
    if cap is None or not _MIN_CAP <= cap <= _MAX_CAP:
        msg = (
            f"approval_gate_cap of repository {repo} is {plain(item['approval_gate_cap'])!r}, "
            f"not a whole number from {_MIN_CAP} to {_MAX_CAP}. Correct it in the RepoTable."
        )
        raise RepoUnusableError(msg)
    return cap
