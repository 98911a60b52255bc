"""Beat: any number of them, and one sweep for each interval, asked for three times.

Each beat asks for the interval's own sweep, and the dedup key of that ask lets one beat through.
There is no leader to lose, and no file to share.

Beats ask at fixed points of the interval by the broker's clock, and wait for them by the monotonic
clock. So a beat whose wall clock is wrong, or jumps, asks at the same points as the others. A beat
that is restarted late in an interval asks at once, and then at those points.

Every other entry of ``beat_schedule`` is sent as Celery sends it: by the wall clock, and once by
each beat.
"""

from __future__ import annotations

import time
from typing import Any

from celery.beat import ScheduleEntry, Scheduler, SchedulingError
from celery.schedules import schedstate, schedule
from kombu import Producer

from reconciler.errors import TemporaryError
from workers.enqueue import UNREACHABLE, ask_for_sweep
from workers.heartbeat import Pulse
from workers.outage import LOST, Outage, check_broker


class AskPoints(schedule):
    """When to ask for a sweep: at once, and then whenever ``wait`` says.

    ``every_seconds``: until the next ask, where the last one could not be made.
    """

    def __init__(self, every_seconds: float) -> None:
        super().__init__(every_seconds)
        self._next = time.monotonic()

    def wait(self, seconds: float) -> None:
        """Be due in so many seconds."""
        self._next = time.monotonic() + seconds

    def is_due(self, last_run_at: object) -> schedstate:  # noqa: ARG002 - of the wall clock
        """Return whether to ask now, and in how many seconds to look again."""
        left = self._next - time.monotonic()
        return schedstate(left <= 0, left if left > 0 else self.seconds)


class SweepScheduler(Scheduler):
    """Celery's own scheduler, which asks for sweeps in our way."""

    def setup_schedule(self) -> None:
        """Take the schedule over.

        Raises:
            SystemExit: the broker is in cluster mode.
        """
        self._outage = Outage()
        self._pulse = Pulse()
        try:
            check_broker()
        except LOST as error:
            self._outage.began(error)
        super().setup_schedule()

    def tick(self, *args: Any, **options: Any) -> float:  # noqa: ANN401 - Celery's
        """Send what is due; returns in how many seconds to look again.

        Celery keeps its entries in a heap by wall-clock time, and looks at the first one only.
        After the clock was set back, the first would hold up all others. So the heap is made anew.
        """
        self._pulse.beat()
        now = self.app.now()
        for entry in self.schedule.values():
            if entry.last_run_at is not None and entry.last_run_at > now:
                entry.last_run_at = now
        self._heap = None
        return float(super().tick(*args, **options))

    def apply_async(
        self,
        entry: ScheduleEntry,
        producer: Producer | None = None,
        advance: bool = True,  # noqa: FBT001, FBT002 - Celery's
        **options: Any,  # noqa: ANN401 - Celery's
    ) -> Any:  # noqa: ANN401 - Celery's
        """Send an entry; one that the broker does not take is sent when it is due again."""
        try:
            if isinstance(entry.schedule, AskPoints):
                # First for the case that the ask fails: Celery would come back at once.
                entry.schedule.wait(entry.schedule.seconds)
                entry.schedule.wait(ask_for_sweep(self.app))
                sent = None
            else:
                sent = super().apply_async(entry, producer=producer, advance=advance, **options)
        except TemporaryError as error:
            self._outage.began(error)
            return None
        except SchedulingError as error:
            if not isinstance(error.__context__, UNREACHABLE):
                raise  # the entry itself is wrong, and Celery says so
            self._outage.began(error.__context__)
            return None
        self._outage.ended()
        return sent
