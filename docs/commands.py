"""Finds every command that the documents show, for the tests that run or parse them.

It looks in fenced blocks of shell and cron, and in text in backticks that begins with one of
``PROGRAMS``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("reconciler", "celery", "make", "docker", "aws")

_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)", re.MULTILINE | re.DOTALL
)
_INLINE = re.compile(r"(?<!`)`(?P<said>[^`]+)`(?!`)")
_SHELLS = ("sh", "bash", "shell", "console")
_CRON_FIELDS = 5
_SEPARATORS = frozenset({"|", "||", "&&", ";", "&"})


@dataclass(frozen=True, slots=True)
class Shown:
    """A line of shell that a document shows. ``kind``: ``sh``, ``cron`` or ``inline``."""

    document: str
    line: int
    kind: str
    text: str

    @property
    def where(self) -> str:
        """Return its place, for the name of a test."""
        return f"{self.document}:{self.line} {self.text[:60]}"


@dataclass(frozen=True, slots=True)
class Simple:
    """One program with its arguments, as a shell would start it."""

    assigned: dict[str, str]
    words: tuple[str, ...]


def documents() -> list[Path]:
    """Return the documents that instruct people; the transcript only records."""
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "transcript.md"),
    ]


def shown(document: Path) -> Iterator[Shown]:
    """Yield the commands that a document shows, in order."""
    text = document.read_text(encoding="utf-8")
    name = document.relative_to(ROOT).as_posix()
    found: list[Shown] = []

    def blank(match: re.Match[str]) -> str:
        language, body = match["language"], match["body"]
        kind = "cron" if language in {"cron", "crontab"} else "sh"
        if kind == "cron" or language in _SHELLS:
            first = text.count("\n", 0, match.start("body")) + 1
            found.extend(Shown(name, first + at, kind, line) for at, line in _lines(body))
        return re.sub(r"[^\n]", " ", match[0])

    prose = _FENCE.sub(blank, text)
    for match in _INLINE.finditer(prose):
        said = " ".join(match["said"].split())
        if said.split(" ", 1)[0] in PROGRAMS and " " in said:
            found.append(Shown(name, prose.count("\n", 0, match.start()) + 1, "inline", said))
    return iter(sorted(found, key=lambda each: each.line))


def _lines(body: str) -> Iterator[tuple[int, str]]:
    """Yield (line, command) of a block; a backslash joins a line with the next."""
    joined, first = "", 0
    for number, line in enumerate(body.splitlines()):
        joined, first = (joined + line, first) if joined else (line, number)
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        command = joined.strip().removeprefix("$ ")
        if command and not command.startswith("#"):
            yield first, command
        joined = ""


def simple_commands(each: Shown) -> list[Simple]:
    """Split a line into the commands that a shell would start, without redirections.

    Raises:
        ValueError: the line cannot be parsed.
    """
    text = each.text
    if each.kind == "cron":
        fields = text.split(None, _CRON_FIELDS)
        if len(fields) <= _CRON_FIELDS or not all(
            re.fullmatch(r"[\d*/,-]+", f) for f in fields[:5]
        ):
            raise ValueError(f"not a line of cron: {text}")
        text = fields[_CRON_FIELDS]
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    found: list[list[str]] = [[]]
    tokens = iter(lexer)
    for token in tokens:
        if token.startswith("#"):
            break
        if token in _SEPARATORS:
            found.append([])
        elif set(token) <= set("<>&"):
            next(tokens)  # the target
            if found[-1] and found[-1][-1] in {"1", "2"}:
                found[-1].pop()
        else:
            found[-1].append(token)
    return [_simple(words) for words in found if words]


def _simple(words: list[str]) -> Simple:
    assigned = {}
    rest = list(words)
    if rest[0] == "export":
        rest = rest[1:]
    while rest and re.match(r"[A-Z][A-Z0-9_]*=", rest[0]):
        name, _, value = rest.pop(0).partition("=")
        assigned[name] = value
    return Simple(assigned, tuple(rest))
