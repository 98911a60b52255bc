"""The CPU time of processes and their descendants, as the operating system counts it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM = 11, 12, 13, 14
"""Positions in ``/proc/<pid>/stat`` after the name, which may contain spaces."""


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU seconds that these processes and their descendants have used so far.

    A descendant that has ended counts while its parent is alive.

    Raises:
        RuntimeError: this system has no /proc.
    """
    if not _PROC.is_dir():
        raise RuntimeError("cannot read the CPU time of other processes: there is no /proc")
    return sum(_ticks(pid) for root in pids for pid in _tree(root)) / _TICKS_PER_SECOND


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in (_PROC / str(pid) / "task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            yield from _tree(int(child))


def _ticks(pid: int) -> int:
    fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(fields[at]) for at in (_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM))
