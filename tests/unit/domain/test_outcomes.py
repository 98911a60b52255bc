"""Outcomes: which ones a release can have, and which ones count as repairs."""

from __future__ import annotations

from reconciler.domain.outcomes import LOST_TO_OTHERS, RELEASE_OUTCOMES, REPAIRED, Outcome


def test_three_outcomes_belong_only_to_other_repairs() -> None:
    assert set(Outcome) - set(RELEASE_OUTCOMES) == {"queued", "done", "lost_race"}


def test_no_outcome_is_both_repaired_and_lost() -> None:
    assert not REPAIRED & LOST_TO_OTHERS
