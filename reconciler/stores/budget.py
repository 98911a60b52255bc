"""The budget per user: reservations for releases that are on their way to admission.

UserConcurrencyTable counts what the platform has admitted; between our release and that admission
a task is in neither count. So each release adds its task to a set of reservations in the same
transaction, under a condition on the size of that set, and whoever looks next takes those out that
have been admitted. The row is ours (a marker row in a partition of its own), so the platform's
counter is only ever read.

    releaser A            releaser B                     platform
    prune, version 7
    read active = 8       prune, version 7
                          read active = 8
    +1 if v=7, size<2                                    admits: active = 9
                          +1 if v=7, size<2  → refused: the set holds A's already
    A admitted            prune, version 8 → reads active = 9 → one slot

Reading ``active_count`` only after pruning, and bumping the version with each pruning, is what
keeps a task from being in neither count for anybody who decides on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.domain.budget import Budget
from reconciler.domain.model import Item, moment, timestamp
from reconciler.domain.rows import number
from reconciler.errors import ConflictError, ReconcilerError
from reconciler.stores.conditions import Action, Expression, all_of, update
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.tasks import TaskStore

PARTITION_PREFIX = "reconciler#budget#"
ROW = "reconciler#budget"
_WAITING = "waiting:"
_ON_THE_WAY = frozenset({"PENDING_UPLOADS", "QUEUED", "SUBMITTED"})
_PRUNE_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Slots:
    """A user's free slots as read, with what the release's condition must still find.

    ``limit``: how large the set of reservations may grow; ``version``: of its last pruning;
    ``pruned``: nothing in the set has been admitted, so that its size is of use.
    """

    user_id: str
    room: int
    limit: int
    version: str | None
    row: Item
    pruned: bool = True

    def budget(self, own_prefix: str, now: datetime, fresh_for: timedelta) -> Budget:
        """Return the budget as the diagnosis of the orchestration ``own_prefix`` sees it."""
        ahead: list[datetime] = []
        for name, value in self.row.items():
            if not name.startswith(_WAITING) or name.startswith(f"{_WAITING}{own_prefix}_"):
                continue
            since, _, seen = str(value.get("S", "")).partition("|")
            seen_at = moment(seen)
            if seen_at is not None and now - seen_at <= fresh_for:
                ahead.append(moment(since) or datetime.min.replace(tzinfo=UTC))
        return Budget(room=max(0, self.room), ahead=tuple(sorted(ahead)))


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
        """Read a user's slots, after taking out the reservations that have been admitted.

        ``prune`` False only reads: for a report, on which nothing may be reserved.

        Raises:
            TemporaryError, PermanentError: it cannot be read; then there is no slot to give.
        """
        for _ in range(_PRUNE_ROUNDS):
            row = self._read(user_id)
            reserved = set(row.get("reservations", {}).get("SS", ()))
            waiting = reserved | set(self._tasks.submitted_by(user_id))
            on_the_way = {
                task_id
                # What could not be read may wait still: then the budget is not known.
                for task_id, task in self._tasks.read_all(waiting).items()
                if task is not None and task.status in _ON_THE_WAY
            }
            admitted = reserved - on_the_way
            version = number(row, "version") or 0
            if admitted and prune:
                if not self._prune(user_id, row, admitted):
                    continue
                version += 1
            # Only now: what has just been taken out is in this count.
            active = self._active(user_id)
            room = self._cap - active - len(on_the_way)
            return Slots(
                user_id=user_id,
                room=room,
                limit=len(reserved - admitted) + max(0, room),
                version=str(version) if version else None,
                row=row,
                pruned=prune or not admitted,
            )
        msg = f"the budget of {user_id} kept changing while it was read"
        raise ConflictError(msg)

    def reserve(self, slots: Slots, task_id: str, waiting_key: str) -> Action:
        """One reservation, if a slot is still free and nobody has pruned since ``slots``."""
        build = Expression()
        if slots.limit <= 0:
            # An absent set has no size, and 0 slots must refuse it too.
            free = f"attribute_exists({build.name('never')})"
        else:
            size = f"size({build.name('reservations')}) < {build.value({'N': str(slots.limit)})}"
            free = f"(attribute_not_exists({build.name('reservations')}) OR {size})"
        added = build.value({"SS": [task_id]})
        change = (
            f"ADD {build.name('reservations')} {added} "
            f"REMOVE {self._waiting_name(build, waiting_key)}"
        )
        return update(
            self._table,
            self._key(slots.user_id),
            change,
            all_of(free, self._version_is(slots.version, build)),
            build,
        )

    def note_waiting(self, slots: Slots, due: Mapping[str, datetime], now: datetime) -> None:
        """Remember who waits, so that the oldest goes first; at most as many as could matter.

        ``due``: idempotency key → due since. Refreshed by each evaluation; what is not is
        forgotten by its readers.
        """
        oldest = sorted(due, key=lambda key: (due[key], key))[: self._cap]
        if not oldest:
            return
        build = Expression()
        parts = []
        for index, key in enumerate(oldest):
            name = f"#w{index}"
            build.names[name] = f"{_WAITING}{key}"
            text = f"{timestamp(due[key])}|{timestamp(now)}"
            parts.append(f"{name} = {build.text(text)}")
        stale = self._stale(slots.row, now)
        change = "SET " + ", ".join(parts)
        if stale:
            names = []
            for index, attribute in enumerate(stale):
                build.names[f"#s{index}"] = attribute
                names.append(f"#s{index}")
            change += " REMOVE " + ", ".join(names)
        self._dynamodb.call(
            "update_item",
            TableName=self._table,
            Key=self._key(slots.user_id),
            UpdateExpression=change,
            **build.arguments(),
        )

    @staticmethod
    def _stale(row: Item, now: datetime) -> list[str]:
        found = []
        for name, value in row.items():
            if name.startswith(_WAITING):
                seen = moment(str(value.get("S", "")).partition("|")[2])
                if seen is None or now - seen > timedelta(days=1):
                    found.append(name)
        return found[:50]

    @staticmethod
    def _waiting_name(build: Expression, key: str) -> str:
        build.names["#waiting"] = f"{_WAITING}{key}"
        return "#waiting"

    @staticmethod
    def _version_is(version: str | None, build: Expression) -> str:
        if version is None:
            return f"attribute_not_exists({build.name('version')})"
        return f"{build.name('version')} = {build.value({'N': version})}"

    @staticmethod
    def _key(user_id: str) -> dict[str, Any]:
        return {
            "orchestration_id": {"S": f"{PARTITION_PREFIX}{user_id}"},
            "sub_issue_id": {"S": ROW},
        }

    def _read(self, user_id: str) -> Item:
        got = self._dynamodb.call(
            "get_item", TableName=self._table, Key=self._key(user_id), ConsistentRead=True
        )
        row: Item = got.get("Item", {})
        return row

    def _prune(self, user_id: str, row: Item, admitted: set[str]) -> bool:
        build = Expression()
        gone = build.value({"SS": sorted(admitted)})
        one = build.value({"N": "1"})
        change = f"DELETE {build.name('reservations')} {gone} ADD {build.name('version')} {one}"
        version = number(row, "version")
        lost = self._dynamodb.write(
            "update_item",
            TableName=self._table,
            Key=self._key(user_id),
            UpdateExpression=change,
            ConditionExpression=self._version_is(str(version) if version else None, build),
            **build.arguments(),
        )
        return lost is None

    def _active(self, user_id: str) -> int:
        got = self._dynamodb.call(
            "get_item",
            TableName=self._concurrency_table,
            Key={"user_id": {"S": user_id}},
            ConsistentRead=True,
        )
        item: Item = got.get("Item", {})
        if "active_count" not in item:
            return 0
        active = number(item, "active_count")
        # A count that cannot be read counts as none left; a leaked negative one as nobody active.
        if active is None:
            raw = str(item["active_count"].get("N", ""))
            return 0 if raw.startswith("-") else self._cap
        return active


class HeldSlots:
    """A user's slots over one pass: read once, and used up as releases are made.

    They stay good for the conditions of later reservations: the size of the set counts our own,
    and whoever prunes it changes its version. In time they can only become too cautious, so they
    are read again when they are used up, and when a reservation is refused.
    """

    def __init__(self, store: BudgetStore) -> None:
        self._store = store
        self._slots: Slots | None = None
        self.fresh = False

    def hold(self, slots: Slots) -> None:
        """Go on from what was read already, if it is of use."""
        if slots.pruned:
            self._slots = slots

    def open(self, user_id: str, *, prune: bool) -> Slots:
        """Return the slots; ``fresh`` says whether they have been read just now."""
        self.fresh = self._slots is None or self._slots.room <= 0
        if self._slots is None or self.fresh:
            self._slots = self._store.open(user_id, prune=prune)
        return self._slots

    def use(self) -> None:
        """Take note of a reservation that was made."""
        if self._slots is not None:
            self._slots = replace(self._slots, room=self._slots.room - 1)

    def forget(self) -> None:
        """Read them again next time."""
        self._slots = None


def unreadable(error: ReconcilerError) -> Budget:
    """The budget when it cannot be read: nothing is left, and it says why."""
    return Budget(room=0, problem=str(error))
