"""What the doctor finds: one line each, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one thing. ``advice`` says what to do; it is empty only where all is well."""

    check: str
    subject: str
    level: Level
    found: str
    advice: str = ""


def ok(check: str, subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, subject, Level.OK, found)


def warning(check: str, subject: str, found: str, advice: str) -> Finding:
    """It works, and not as it should; or it could not be looked at."""
    return Finding(check, subject, Level.WARNING, found, advice)


def failure(check: str, subject: str, found: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check, subject, Level.FAILURE, found, advice)
