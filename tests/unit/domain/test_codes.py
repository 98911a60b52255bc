"""The codes of the contract, and which of them count as stuck."""

from __future__ import annotations

from reconciler.domain.codes import BENIGN, HEALTHY, STUCK_CODES, SURFACED, Code, OrchestrationCode


def test_the_codes_are_those_of_the_contract() -> None:
    assert {code.value for code in Code} == {
        "waiting", "running", "within_grace", "claim_in_progress", "over_budget", "lost_release",
        "lost_terminal", "lost_skip", "abandoned_claim", "unstarted_task", "refused",
        "long_running", "missing_task", "missing_task_id", "dangling_dependency",
        "dependency_cycle", "orphan_row", "unknown_status", "malformed_row",
        "idempotency_conflict", "check_failed", "quarantined", "lost_recovery", "lost_unskip",
    }  # fmt: skip
    assert {code.value for code in OrchestrationCode} == {
        "in_progress", "settled", "unsettled_parent", "rows_missing",
    }  # fmt: skip


def test_the_healthy_benign_and_surfaced_codes_are_fixed() -> None:
    assert set(HEALTHY) == {"waiting", "running", "within_grace", "claim_in_progress"}
    assert set(BENIGN) - set(HEALTHY) == {"over_budget"}
    assert set(SURFACED) == {"unsettled_parent", "rows_missing"}


def test_every_other_code_counts_as_stuck_once() -> None:
    assert len(STUCK_CODES) == len(set(STUCK_CODES))
    assert set(STUCK_CODES) == (set(Code) - HEALTHY).union(SURFACED)
