"""The doctor's findings: one line each, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. ``advice`` says what to do; it is empty only if all is well."""

    check: str
    subject: str
    level: Level
    found: str
    advice: str = ""


def ok(check: str, subject: str, found: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, subject, Level.OK, found)


def warning(check: str, subject: str, found: str, advice: str) -> Finding:
    """Return a finding about something that works badly or could not be checked."""
    return Finding(check, subject, Level.WARNING, found, advice)


def failure(check: str, subject: str, found: str, advice: str) -> Finding:
    """Return a finding about something that does not work."""
    return Finding(check, subject, Level.FAILURE, found, advice)
