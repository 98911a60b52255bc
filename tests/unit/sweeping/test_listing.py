"""The list of what is known stuck, as the command line and Flower show it."""

from __future__ import annotations

import json

import pytest

from reconciler.repair.context import Stuck
from reconciler.sweeping.known_stuck import Finding, Known
from reconciler.sweeping.listing import Query, list_entries, select

NOW = 10_000.0


def known(finding: Finding) -> Known:
    return Known().evaluated(finding, 60.0, NOW)


def remembered() -> dict[str, Known]:
    return {
        "orch_web": known(
            Finding(
                NOW,
                (
                    Stuck("orch_web", "a", "lost_release", "due", 50.0),
                    Stuck(
                        "orch_web",
                        "b",
                        "dependency_cycle",
                        "a circle",
                        900.0,
                        None,
                        needs_action=True,
                    ),
                ),
                "rows",
                repo="acme/Web",
                user_id="ada",
                display_ids={"b": "ENG-42"},
            )
        ),
        "orch_api": known(
            Finding(
                NOW,
                (
                    Stuck("orch_api", "c", "over_budget", "no slot", 300.0, "T-1"),
                    Stuck("orch_api", None, "rows_missing", "fewer rows", None, needs_action=True),
                ),
                "rows",
                repo="acme/api",
                user_id="bob",
            )
        ),
    }


def listed(query: Query) -> list[str]:
    return [e.sub_issue_id or "-" for e in select(list_entries(remembered(), NOW), query).entries]


def test_the_oldest_comes_first() -> None:
    """An entry without an age of its own is as old as its record."""
    assert listed(Query()) == ["b", "c", "a", "-"]


def test_an_unknown_age_comes_first() -> None:
    """It could be the oldest, so no filter by age hides it."""
    left = remembered()
    left["orch_web"] = left["orch_web"].with_releases({"d": None}, NOW)
    page = select(list_entries(left, NOW), Query(older_than_seconds=300))
    assert [entry.sub_issue_id for entry in page.entries] == ["d", "b", "c"]


def test_entries_of_one_age_follow_their_ids() -> None:
    """An entry of the orchestration as a whole comes before those of its children."""
    children = ("b", None, "a")
    left = {
        name: known(
            Finding(NOW, tuple(Stuck(name, child, "lost_release", "", 5.0) for child in children))
        )
        for name in ("orch_2", "orch_1")
    }
    entries = [(e.orchestration_id, e.sub_issue_id) for e in list_entries(left, NOW)]
    assert entries == [(name, child) for name in ("orch_1", "orch_2") for child in (None, "a", "b")]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(codes=frozenset({"lost_release", "over_budget"})), ["c", "a"]),
        (Query(repo="acme/web"), ["b", "a"]),
        (Query(repo="acme"), []),
        (Query(user_id="bob"), ["c", "-"]),
        (Query(user_id="Bob"), []),
        (Query(older_than_seconds=300), ["b", "c"]),
        (Query(needs_action=True), ["b", "-"]),
        (Query(text="eng-4"), ["b"]),
        (Query(text="ORCH_WEB"), ["b", "a"]),
        (Query(text="t-1"), ["c"]),
        (Query(text="nowhere"), []),
        (Query(user_id="ada", needs_action=True), ["b"]),
    ],
)
def test_a_query_restricts_the_list(query: Query, expected: list[str]) -> None:
    assert listed(query) == expected


def test_an_entry_just_found_is_listed() -> None:
    """By default, no age is too low."""
    left = known(Finding(NOW, (Stuck("o", "a", "lost_release", "due", 0.5),)))
    assert len(select(list_entries({"o": left}, NOW), Query()).entries) == 1


def test_a_repo_excludes_entries_without_one() -> None:
    left = known(Finding(NOW, (Stuck("o", "a", "lost_release", "due", 5.0),)))
    assert select(list_entries({"o": left}, NOW), Query(repo="acme/web")).total == 0


def test_pages_follow_without_a_gap() -> None:
    entries = list_entries(remembered(), NOW)
    first = select(entries, Query(limit=3))
    assert (len(first.entries), first.total, first.remembered, first.next_offset) == (3, 4, 4, 3)
    last = select(entries, Query(limit=3, offset=3))
    assert [e.sub_issue_id for e in last.entries] == [None]
    assert last.next_offset is None
    beyond = select(entries, Query(limit=3, offset=9))
    assert (beyond.entries, beyond.total, beyond.next_offset) == ((), 4, None)
    assert len(select(entries, Query(limit=None)).entries) == 4


def test_a_page_has_fifty_entries_by_default() -> None:
    children = (Stuck("o", f"{number:02}", "lost_release", "", 1.0) for number in range(51))
    page = select(list_entries({"o": known(Finding(NOW, tuple(children)))}, NOW), Query())
    assert (len(page.entries), page.next_offset) == (50, 50)


def test_no_page_follows_an_empty_one() -> None:
    """Whoever follows the pages would ask for the same one forever."""
    assert select(list_entries(remembered(), NOW), Query(limit=0)).next_offset is None


def test_only_a_wait_for_a_slot_is_benign() -> None:
    alarming = {e.code for e in list_entries(remembered(), NOW) if e.alarming}
    assert alarming == {"lost_release", "dependency_cycle", "rows_missing"}


def test_an_entry_names_repo_user_and_display_id() -> None:
    entry = next(e for e in list_entries(remembered(), NOW) if e.sub_issue_id == "b")
    shown = entry.to_json(NOW)
    assert (shown["display_id"], shown["repo"], shown["user_id"]) == ("ENG-42", "acme/Web", "ada")
    assert shown["since"] == "1970-01-01T02:31:40.000Z"
    assert shown["needs_action"] is True
    json.dumps(shown)


def test_an_age_is_shown_to_tenths() -> None:
    left = known(Finding(NOW, (Stuck("o", "a", "lost_release", "due", 5.25),)))
    (entry,) = list_entries({"o": left}, NOW + 0.125)
    assert entry.to_json(NOW)["age_seconds"] == 5.4


def test_unknown_times_are_shown_as_null() -> None:
    (entry,) = list_entries({"o": Known().with_releases({"a": None}, NOW)}, NOW)
    shown = entry.to_json(NOW)
    assert (shown["age_seconds"], shown["since"], shown["look_at"]) == (None, None, None)


def test_an_entry_tells_when_its_pause_ends() -> None:
    """Only if sweeps skip it for a while."""
    finding = Finding(
        NOW, (Stuck("o", "a", "dependency_cycle", "", 1.0),), "rows", needs_person=True
    )
    once = known(finding)
    assert list_entries({"o": once}, NOW)[0].look_at is None
    again = once.evaluated(
        Finding(NOW + 60, finding.stuck, "rows", needs_person=True), 60.0, NOW + 60
    )
    (entry,) = list_entries({"o": again}, NOW + 61)
    assert entry.look_at == NOW + 300
    assert entry.to_json(NOW + 61)["look_at"] == "1970-01-01T02:51:40.000Z"
    assert list_entries({"o": again}, NOW + 300)[0].look_at is None, "the pause is over"


def test_a_pending_release_keeps_its_display_id() -> None:
    found = known(Finding(NOW, (), "rows", repo="acme/web", display_ids={"a": "ENG-1"}))
    (entry,) = list_entries({"o": found.with_releases({"a": NOW - 30}, NOW)}, NOW)
    assert (entry.display_id, entry.repo, entry.age_seconds) == ("ENG-1", "acme/web", 30.0)
    assert not entry.needs_action


def test_a_failed_evaluation_keeps_the_known_names() -> None:
    """It read no rows, so the names are those of the evaluation before it."""
    failed = Stuck("orch_web", None, "check_failed", "throttled", None)
    left = remembered()["orch_web"].evaluated(Finding(NOW + 1, (failed,)), 60.0, NOW + 1)
    (entry,) = list_entries({"orch_web": left}, NOW + 2)
    assert (entry.repo, entry.user_id, entry.code) == ("acme/Web", "ada", "check_failed")


def test_the_list_survives_storage() -> None:
    """A round trip through JSON changes nothing in it."""
    stored = {
        name: Known.from_record(json.loads(json.dumps(left.to_record())), NOW)
        for name, left in remembered().items()
    }
    assert list_entries(stored, NOW) == list_entries(remembered(), NOW)
