"""The budget per user: reservations for tasks on their way to admission.

UserConcurrencyTable counts the tasks that the platform has admitted. Between a release and its
admission, nothing would count the task. So each release adds its task to a set of reservations, in
the same transaction, conditional on the size of that set. The next reader prunes the tasks that
have been admitted. The set is a marker row of ours; the platform's counter is only read.

    releaser A            releaser B                     platform
    prune, version 7
    read active = 8       prune, version 7
                          read active = 8
    +1 if v=7, size<2                                    admits: active = 9
                          +1 if v=7, size<2  → refused: the set holds A's already
    A admitted            prune, version 8 → reads active = 9 → one slot

``active_count`` is read only after pruning, and each pruning increments the version. So nobody can
decide on counts that both lack a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from reconciler.domain.budget import Budget
from reconciler.domain.due import MAX_AHEAD
from reconciler.domain.model import Item, moment, timestamp
from reconciler.errors import ConflictError, ReconcilerError
from reconciler.stores.conditions import Expression, Write, all_of, update
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.items import number, row_key
from reconciler.stores.tasks import NOT_ADMITTED, TaskStore

PARTITION_PREFIX = "reconciler#budget#"
ROW = "reconciler#budget"
_WAITING = "waiting:"
_PRUNE_ROUNDS = 8

MAX_WAITING = 100
"""The limits are 4 KB and 300 operators for an expression, and 400 KB for an item."""


@dataclass(frozen=True, slots=True)
class Slots:
    """A user's free slots as read, and the values for the condition of a reservation.

    ``limit``: how large the set of reservations may grow. ``version``: of its last pruning.
    ``pruned``: the set holds no admitted tasks, so its size can be used. ``taken``: says what
    takes up the slots.
    """

    user_id: str
    room: int
    limit: int
    version: str | None
    row: Item
    pruned: bool = True
    taken: str = ""

    def budget(self, own_prefix: str, now: datetime, fresh_for: timedelta) -> Budget:
        """Return the budget for the diagnosis of the orchestration with id ``own_prefix``."""
        own = f"{_WAITING}{own_prefix}_"
        waiting = _fresh(self.row, now, fresh_for)
        ahead = sorted(since for name, since in waiting.items() if not name.startswith(own))
        return Budget(room=max(0, self.room), ahead=tuple(ahead), taken=self.taken)

    def waiting(self, prefix: str) -> list[str]:
        """Return the waiting idempotency keys that begin with ``prefix``."""
        own = f"{_WAITING}{prefix}"
        return [n.removeprefix(_WAITING) for n in self.row if n.startswith(own)]


def _key(user_id: str) -> Item:
    return row_key(f"{PARTITION_PREFIX}{user_id}", ROW)


def _fresh(row: Item, now: datetime, fresh_for: timedelta) -> dict[str, datetime]:
    """Return the recent waiting records, attribute → due since.

    A record from the future is ignored: its writer's clock was wrong, so it may be outdated.
    """
    found: dict[str, datetime] = {}
    for name, value in row.items():
        if name.startswith(_WAITING):
            since, _, seen = str(value.get("S", "")).partition("|")
            seen_at = moment(seen)
            if seen_at is not None and -MAX_AHEAD <= now - seen_at <= fresh_for:
                found[name] = moment(since) or datetime.min.replace(tzinfo=UTC)
    return found


def _oldest(waiting: Mapping[str, datetime], most: int) -> set[str]:
    """Return the longest waiting; equal times are ordered by name."""
    return set(sorted(waiting, key=lambda name: (waiting[name], name))[:most])


class BudgetStore:
    """Reservations (a marker row of OrchestrationTable) and UserConcurrencyTable (read only)."""

    def __init__(
        self, dynamodb: DynamoDB, table: str, concurrency_table: str, tasks: TaskStore, cap: int
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._concurrency_table = concurrency_table
        self._tasks = tasks
        self._cap = cap

    def open(self, user_id: str, *, prune: bool = True) -> Slots:
        """Read a user's slots, after pruning the reservations of admitted tasks.

        With ``prune`` False it only reads; the result must not be used for reservations.

        Raises:
            ConflictError: others kept changing the row.
        """
        for _ in range(_PRUNE_ROUNDS):
            row = self._dynamodb.get(self._table, _key(user_id)) or {}
            reserved = set(row.get("reservations", {}).get("SS", ()))
            on_the_way = self._find_on_the_way(user_id, reserved)
            admitted = reserved - on_the_way
            version = number(row, "version") or 0
            if admitted and prune:
                if not self._prune(user_id, row, admitted):
                    continue
                version += 1
            # After pruning, because this counts the tasks that were just removed.
            active = self._active(user_id)
            room = self._cap - active - len(on_the_way)
            return Slots(
                user_id=user_id,
                room=room,
                limit=len(reserved - admitted) + max(0, room),
                version=str(version) if version else None,
                row=row,
                pruned=prune or not admitted,
                taken=(
                    f"of {self._cap} slots, {active} are taken by admitted tasks and "
                    f"{len(on_the_way)} by tasks on their way to admission"
                ),
            )
        msg = f"the budget of {user_id} kept changing while it was read"
        raise ConflictError(msg)

    def _find_on_the_way(self, user_id: str, reserved: set[str]) -> set[str]:
        """Return all tasks of a user that wait for admission, whoever created them."""
        waiting = reserved | set(self._tasks.not_admitted(user_id))
        # An unread task may still be waiting, so this fails unless all are read.
        tasks = self._tasks.read_existing(waiting)
        return {task.task_id for task in tasks if task.status in NOT_ADMITTED}

    def reserve(self, slots: Slots, task_id: str, waiting_key: str) -> Write:
        """Return the write of a reservation: a slot is still free, and nobody has pruned since."""
        build = Expression()
        if slots.limit <= 0:
            # An absent set has no size, so it takes another condition to refuse.
            free = build.exists("never")
        else:
            size = f"size({build.name('reservations')}) < {build.value({'N': str(slots.limit)})}"
            free = f"({build.absent('reservations')} OR {size})"
        added = f"{build.name('reservations')} {build.value({'SS': [task_id]})}"
        change = f"ADD {added} REMOVE {build.name(f'{_WAITING}{waiting_key}')}"
        as_read = build.count_is("version", int(slots.version or 0))
        return update(self._table, _key(slots.user_id), change, all_of(free, as_read), build)

    def note_waiting(
        self,
        slots: Slots,
        due: Mapping[str, datetime],
        gone: Iterable[str],
        now: datetime,
        fresh_for: timedelta,
    ) -> None:
        """Record which children wait for a slot, so that the oldest goes first.

        ``due``: idempotency key → due since. Each evaluation refreshes its records; others expire
        after ``fresh_for``. ``gone``: keys that no longer wait. Only the user's oldest records are
        kept, over all orchestrations, because rows and writes have size limits.
        """
        ours = {f"{_WAITING}{key}": since for key, since in due.items()}
        waiting = {**_fresh(slots.row, now, fresh_for), **ours}
        for key in gone:
            waiting.pop(f"{_WAITING}{key}", None)
        kept = _oldest(waiting, min(self._cap, MAX_WAITING))
        noted = sorted(ours.keys() & kept)
        stale = [n for n in slots.row if n.startswith(_WAITING) and n not in kept][:MAX_WAITING]
        if not noted and not stale:
            return
        self._write_waiting(slots.user_id, {name: ours[name] for name in noted}, stale, now)

    def _write_waiting(
        self, user_id: str, noted: Mapping[str, datetime], stale: Iterable[str], now: datetime
    ) -> None:
        build = Expression()
        seen = timestamp(now)
        set_to = [
            f"{build.name(name)} = {build.text(f'{timestamp(since)}|{seen}')}"
            for name, since in noted.items()
        ]
        removed = [build.name(name) for name in stale]
        clauses = (("SET", set_to), ("REMOVE", removed))
        self._dynamodb.call(
            "update_item",
            TableName=self._table,
            Key=_key(user_id),
            UpdateExpression=" ".join(f"{verb} {', '.join(p)}" for verb, p in clauses if p),
            **build.arguments(),
        )

    def _prune(self, user_id: str, row: Item, admitted: set[str]) -> bool:
        build = Expression()
        gone = build.value({"SS": sorted(admitted)})
        one = build.value({"N": "1"})
        change = f"DELETE {build.name('reservations')} {gone} ADD {build.name('version')} {one}"
        as_read = build.count_is("version", number(row, "version") or 0)
        write = update(self._table, _key(user_id), change, as_read, build)
        return self._dynamodb.write(write) is None

    def _active(self, user_id: str) -> int:
        item = self._dynamodb.get(self._concurrency_table, {"user_id": {"S": user_id}})
        if item is None or "active_count" not in item:
            return 0
        active = number(item, "active_count")
        # A malformed count means no free slot; a negative one, after a leak, nothing active.
        if active is None:
            raw = str(item["active_count"].get("N", ""))
            return 0 if raw.startswith("-") else self._cap
        return active


class HeldSlots:
    """A user's slots during one pass: read once, and used up as releases are made.

    They remain valid for later reservations: the set includes our own, and pruning changes the
    version. Over time they can only become too cautious, so they are read again when they are
    used up or a reservation is refused.
    """

    def __init__(self, store: BudgetStore) -> None:
        self._store = store
        self._slots: Slots | None = None
        self.fresh = False

    def hold(self, slots: Slots) -> None:
        """Use slots that were read already, if they can be reserved."""
        if slots.pruned:
            self._slots = slots

    def open(self, user_id: str, *, prune: bool) -> Slots:
        """Return the slots; ``fresh`` tells whether this call has read them."""
        self.fresh = self._slots is None or self._slots.room <= 0
        if self._slots is None or self.fresh:
            self._slots = self._store.open(user_id, prune=prune)
        return self._slots

    def reserve(self, slots: Slots, task_id: str, waiting_key: str) -> Write:
        """See ``BudgetStore.reserve``."""
        return self._store.reserve(slots, task_id, waiting_key)

    def use(self) -> None:
        """Count a reservation that was made."""
        if self._slots is not None:
            self._slots = replace(self._slots, room=self._slots.room - 1)

    def forget(self) -> None:
        """Read them again next time."""
        self._slots = None


def unreadable(error: ReconcilerError) -> Budget:
    """Return a budget without room, for one that could not be read."""
    return Budget(room=0, problem=str(error))
