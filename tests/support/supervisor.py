"""The demo's supervisor, which also kills its processes on purpose."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from reconciler.demo.processes import MAX_RESTARTS, Child, Supervisor
from reconciler.embedded.process import signal_group


@dataclass
class KillingSupervisor(Supervisor):
    """Does not count the exits that it causes; ``last_words``: the output before the others."""

    last_words: list[str] = field(default_factory=list)
    _killed: set[str] = field(default_factory=set)

    def kill(self, name: str) -> None:
        """Kill a process and its children; it is restarted like any other."""
        with self._lock:
            process = self.children[name].process
            if process is not None and process.poll() is None:
                signal_group(process.pid, signal.SIGKILL)
                process.wait()
                self._killed.add(name)

    def _look_after(self, child: Child) -> None:
        process = child.process
        if process is not None and process.poll() is not None and child.restarts <= MAX_RESTARTS:
            if child.name in self._killed:
                self._killed.remove(child.name)
                child.restarts -= 1
            else:
                self.last_words.append(f"{child.name}, code {process.returncode}: {child.tail()}")
        super()._look_after(child)
