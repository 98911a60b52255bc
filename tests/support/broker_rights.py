"""Record what each role does at the broker, and write the users of ``deploy/valkey/users.acl``.

The server itself reports its requests (MONITOR) and the keys of a command (COMMAND GETKEYS). Each
role has its own relay to the server, which tells its commands apart. The commands of a script
count for the role that calls it.
"""

from __future__ import annotations

import ast
import re
import secrets
import socket
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from textwrap import wrap
from typing import BinaryIO

import redis
from redis.utils import str_if_bytes

from tests.support.broker import Relay, relay_to
from tests.support.processes import ROOT

USERS = ROOT / "deploy" / "valkey" / "users.acl"
TEMPLATE = ROOT / "deploy" / "cloudformation" / "reconciler.yaml"
ROLES = ("worker", "beat", "flower", "exporter", "operator")
ADMIN = "admin"
PASSWORD = "PASSWORD-OF-"
"""With the role's name after it, stands for the role's password in the file."""

KEYS = (
    "reconciler:dedup:*", "reconciler:lock:*", "reconciler:metrics:*", "reconciler:probe",
    "reconciler:recoveries:*", "reconciler:reply:*", "reconciler:scan-debt:*", "reconciler:state:*",
    # Queues, each with one key for every priority.
    "reconciler:by-hand*", "release*", "sweep*",
    # Celery's: unacknowledged messages, bindings, replies, events and results; a limiter's counts.
    "unacked", "unacked_index", "unacked_mutex",
    "_kombu.binding*", "*.reply.celery.pidbox*", "*.celery.pidbox*", "celeryev.*",
    "celery-task-meta-*", "LIMITS:*",
)  # fmt: skip
"""The patterns of all used keys; if several match, the first counts."""

CHANNELS = ("/0.celery.pidbox", "/0.celeryev/*", "celery-task-meta-*")
"""The channels; the queues' are those of database 0, which ``CELERY_BROKER_URL`` names."""

# KEDA reads the length of a queue in a script. KEDA cannot run here, so this user is written by
# hand, and a test runs such a script as this user.
SCALER = (
    f"user reconciler-scaler on >{PASSWORD}scaler ~release ~sweep resetchannels -@all "
    "+client|setinfo +eval +llen +ping +select +type"
)

_LINE = re.compile(rb"\+(?P<at>\d+\.\d+) \[\d+ (?:lua|[^ ]*?:(?P<port>\d+))\] (?P<words>.*)\r\n")
_WORD = re.compile(rb'"(?:[^"\\]|\\.)*"')
_ACCESS = {"access": "R", "insert": "W", "update": "W", "delete": "W"}
"""The server's flag for a command's key → the right that it requires."""

_ON_CHANNELS = {"publish", "subscribe", "psubscribe", "unsubscribe", "punsubscribe"}


def user_of(role: str) -> str:
    """Return the name of a role's user."""
    return f"reconciler-{role}"


@dataclass
class Rights:
    """The rights that a role uses: commands by their names in an access list, and patterns.

    ``keys``: pattern → ``R`` if it is read, ``W`` if it is written, both, or neither if the role
    only asks for a length or a type.
    """

    commands: set[str] = field(default_factory=set)
    keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    channels: set[str] = field(default_factory=set)

    def line(self, role: str) -> str:
        """Return the role's user as a line of an access list."""
        rules = [
            *(_key_rule(key, access) for key, access in sorted(self.keys.items())),
            "resetchannels",
            *(f"&{channel}" for channel in sorted(self.channels)),
            "-@all",
            *(f"+{command}" for command in sorted(self.commands)),
        ]
        return f"user {user_of(role)} on >{PASSWORD}{role} {' '.join(rules)}"


def _key_rule(key: str, access: set[str]) -> str:
    if access == {"R", "W"}:
        return f"~{key}"
    return f"%W~{key}" if access == {"W"} else f"%R~{key}"


def access_list(rights: Mapping[str, Rights]) -> str:
    """Return the file that grants each role exactly what it uses."""
    lines = ["user default off", *(rights[role].line(role) for role in ROLES), SCALER]
    return "\n".join(lines) + "\n"


def write_users(text: str) -> None:
    """Write the access list, and the same rights into the CloudFormation template."""
    USERS.write_text(text)
    template = TEMPLATE.read_text()
    for user, rules in read_users(text).items():
        given = " ".join(rule for rule in rules if not rule.startswith(">"))
        wrapped = "\n".join(f"        {line}" for line in wrap(given, 92, break_on_hyphens=False))
        there = re.compile(rf"(?<=UserName: {user}\n)      AccessString: >-\n(?: {{8}}.*\n)+")
        template = there.sub(lambda _, w=wrapped: f"      AccessString: >-\n{w}\n", template)  # type: ignore[misc]
    TEMPLATE.write_text(template)


def read_users(text: str) -> dict[str, list[str]]:
    """Return user → rules of an access list."""
    lines = [line.split() for line in text.splitlines()]
    return {name: rules for _, name, *rules in lines}


def pattern_of(name: str, patterns: Iterable[str]) -> str:
    """Return the pattern that covers a key or a channel.

    Raises:
        LookupError: there is none; add one.
    """
    for pattern in patterns:
        if fnmatchcase(name, pattern):
            return pattern
    raise LookupError(f"no pattern for {name!r}: add one to {__name__}")


class Recording:
    """A broker's commands by role, from ``recording`` to ``rights``."""

    def __init__(self, admin: redis.Redis, relays: Mapping[str, Relay]) -> None:
        self._admin = admin
        self.ports = {role: relay.port for role, relay in relays.items()}
        self._relays = relays
        self._said: list[tuple[float, int | None, list[bytes]]] = []
        self._end = secrets.token_hex(8).encode()
        self._is_whole = False

    def listen(self, monitor: BinaryIO) -> None:
        """Record every command until the one that ends the recording."""
        for line in monitor:
            found = _LINE.fullmatch(line)
            assert found is not None, line
            words = [
                ast.literal_eval(f"b{word.decode()}") for word in _WORD.findall(found["words"])
            ]
            if words[-1] == self._end:
                self._is_whole = True
                return
            port = found["port"]
            self._said.append((float(found["at"]), int(port) if port else None, words))

    def end(self) -> None:
        """Send the word that ends the recording."""
        self._admin.echo(self._end.decode())

    def rights(self) -> dict[str, Rights]:
        """Return role → the rights that it used.

        Raises:
            LookupError: a key or a channel has no pattern.
        """
        assert self._is_whole, "the connection to the broker was lost"
        roles = self._roles()
        known = {name.decode() for name in self._admin.execute_command("COMMAND LIST")}  # type: ignore[no-untyped-call]
        found: dict[str, Rights] = defaultdict(Rights)
        asked: list[tuple[Rights, list[bytes]]] = []
        role: str | None = None
        for at, port, words in self._said:
            # The commands of a script come right after the call of the script.
            if port is not None:
                role = next((role for since, role in roles.get(port, ()) if since <= at), None)
            if role is None:
                continue
            rights = found[role]
            rights.commands.add(_name(words, known))
            if (name := words[0].decode().lower()) in _ON_CHANNELS:
                channels = words[1:2] if name == "publish" else words[1:]
                rights.channels |= {pattern_of(c.decode(), CHANNELS) for c in channels}
            elif len(words) > 1:
                asked.append((rights, words))
        for rights, key, access in self._keys(asked):
            rights.keys[pattern_of(key, KEYS)] |= access
        for rights in found.values():
            if "evalsha" in rights.commands:
                # A restarted broker no longer knows the script.
                rights.commands.add("script|load")
        return dict(found)

    def _roles(self) -> dict[int, list[tuple[float, str]]]:
        """Return port → the roles that used it and since when, latest first; ports are reused."""
        found: dict[int, list[tuple[float, str]]] = defaultdict(list)
        for role, relay in self._relays.items():
            for since, port in relay.sources:
                found[port].append((since, role))
        return {port: sorted(spoke, reverse=True) for port, spoke in found.items()}

    def _keys(
        self, asked: list[tuple[Rights, list[bytes]]]
    ) -> Iterator[tuple[Rights, str, set[str]]]:
        """Yield each key of these commands, with the access that the server reports for it."""
        with self._admin.pipeline(transaction=False) as pipe:
            for _, words in asked:
                pipe.execute_command("COMMAND GETKEYSANDFLAGS", *words)  # type: ignore[no-untyped-call]
            answers = pipe.execute(raise_on_error=False)
        for (rights, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, redis.RedisError):
                continue  # the command has no keys
            for key, flags in answer:
                said = {str_if_bytes(flag).lower() for flag in flags}
                yield rights, str_if_bytes(key), {_ACCESS[flag] for flag in said & set(_ACCESS)}


def _name(words: list[bytes], known: set[str]) -> str:
    name = words[0].decode().lower()
    whole = f"{name}|{words[1].decode(errors='replace').lower()}" if len(words) > 1 else name
    return whole if whole in known else name


@contextmanager
def recording(admin: redis.Redis, port: int) -> Iterator[Recording]:
    """Record what the roles ask of the broker at ``port`` until the block ends."""
    with ExitStack() as stack:
        relays = {role: stack.enter_context(relay_to(port)) for role in ROLES}
        found = Recording(admin, relays)
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        connection.sendall(f"AUTH {ADMIN} {ADMIN}\r\nMONITOR\r\n".encode())
        monitor = stack.enter_context(connection.makefile("rb"))
        assert [monitor.readline(), monitor.readline()] == [b"+OK\r\n"] * 2
        thread = threading.Thread(target=found.listen, args=(monitor,), name="recording")
        thread.start()
        try:
            yield found
        finally:
            found.end()
            thread.join()
