"""Outcomes: those that a release can end with, and what each says of the child."""

from __future__ import annotations

from reconciler.domain.outcomes import LOST_TO_OTHERS, RELEASE_OUTCOMES, REPAIRED, Outcome


def test_what_only_other_repairs_end_with_is_no_end_of_a_release() -> None:
    assert set(Outcome) - set(RELEASE_OUTCOMES) == {"queued", "done", "lost_race"}


def test_nothing_is_both_done_by_us_and_lost_to_others() -> None:
    assert not REPAIRED & LOST_TO_OTHERS
