"""Derived names: the same input always gives the same name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from ulid import ULID

from reconciler.domain.identity import (
    derived_ulid,
    event_id_for,
    slug,
    task_id_for,
    valid_idempotency_key,
    valid_repo,
)

AT = datetime(2026, 6, 9, 12, 0, 0, 123_000, tzinfo=UTC)


@pytest.mark.parametrize("key", ["a", "orch_0_b", "A-z_9", "k" * 128])
def test_valid_idempotency_keys_are_accepted(key: str) -> None:
    assert valid_idempotency_key(key)


@pytest.mark.parametrize("key", ["", "k" * 129, "a b", "ü", "a#b", "a\n", "\na", "a.b"])
def test_invalid_idempotency_keys_are_rejected(key: str) -> None:
    assert not valid_idempotency_key(key)


def test_a_ulid_depends_on_seed_and_time() -> None:
    first = derived_ulid("seed", AT)
    assert len(first) == 26
    assert first == derived_ulid("seed", AT)
    assert first != derived_ulid("Seed", AT)
    assert ULID.from_str(first).datetime == AT
    assert derived_ulid("a", AT) < derived_ulid("a", AT + timedelta(milliseconds=1))


@pytest.mark.parametrize(
    "at",
    [
        None,
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
    ],
)
def test_a_missing_or_early_time_becomes_the_epoch(at: datetime | None) -> None:
    """A ULID holds no time before 1970."""
    assert ULID.from_str(derived_ulid("seed", at)).milliseconds == 0


def test_the_last_moment_of_the_calendar_fits() -> None:
    latest = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert ULID.from_str(derived_ulid("seed", latest)).datetime == latest


def test_a_task_id_depends_on_key_and_creation() -> None:
    created = "2026-06-09T12:00:00.123Z"
    assert task_id_for("key", created) == task_id_for("key", created)
    assert task_id_for("key", created) != task_id_for("key_2", created)
    assert task_id_for("key", "2026-06-09T14:00:00.123+02:00") == task_id_for("key", created)
    assert task_id_for("key", "yesterday") == task_id_for("key", None)


def test_event_ids_are_unique_and_sort_by_time() -> None:
    first = event_id_for("T", "created", AT)
    assert first == event_id_for("T", "created", AT)
    others = {
        event_id_for("T", "recovered", AT),
        event_id_for("U", "created", AT),
        event_id_for("T", "created", AT + timedelta(microseconds=1)),
    }
    assert len(others | {first}) == 4
    assert event_id_for("T", "a", AT) < event_id_for("T", "a", AT + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ENG-42: Fix the Door!", "eng-42-fix-the-door"),
        ("ENG-1: Fix “it” — Ünïcode!", "eng-1-fix-it-n-code"),
        ("  --  ", "task"),
        ("", "task"),
        ("ÄÖÜ", "task"),
        ("a" * 60, "a" * 50),
        ("0zA9", "0za9"),
        ("---x---", "x"),
    ],
)
def test_a_slug_is_short_and_plain_ascii(line: str, expected: str) -> None:
    assert slug(line) == expected


@pytest.mark.parametrize(
    ("repo", "valid"),
    [
        ("acme/shop", True),
        ("a/b", True),
        ("A-1_2.x/.github", True),
        (".acme/shop..", True),
        ("../shop", False),
        ("./shop", False),
        ("acme/..", False),
        ("acme/.", False),
        ("acme/shop\n", False),
        ("acme/shop/web", False),
        ("acme", False),
        ("/shop", False),
        ("acme/", False),
        ("acme/shöp", False),
        ("acme/the shop", False),
        ("", False),
    ],
)
def test_a_repo_is_an_owner_and_a_name(repo: str, valid: bool) -> None:  # noqa: FBT001
    assert valid_repo(repo) is valid
