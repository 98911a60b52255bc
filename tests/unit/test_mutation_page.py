"""The page on mutants: what it says of a module stays until that is judged again."""

from __future__ import annotations

from tests.mutation.page import QUICK, Judged, read_page, write_page

MODULES = ("pkg.first", "pkg.second", "pkg.third")
SECOND = Judged(10, ("`a < b` → `a <= b`: they are never equal", "`1` → `2`: it is no number"))


def test_what_is_written_is_read_again() -> None:
    judged = {"pkg.first": Judged(3), "pkg.second": SECOND}
    assert read_page(write_page(judged, MODULES, quick=True)) == judged


def test_modules_come_in_their_order_and_the_total_is_of_all() -> None:
    page = write_page({"pkg.second": SECOND, "pkg.first": Judged(3)}, MODULES, quick=False)
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| `pkg.first` | 3 | 3 | 0 |",
        "| `pkg.second` | 10 | 8 | 2 |",
        "| all | 13 | 11 (84.6%) | 2 |",
    ]
    assert "Not judged yet: `pkg.third`.\n" in page
    assert page.count("## Survivors") == 1


def test_a_module_that_is_gone_is_no_longer_shown_and_nothing_is_left_to_judge() -> None:
    page = write_page({"pkg.gone": SECOND, "pkg.first": Judged(0)}, ("pkg.first",), quick=False)
    assert "gone" not in page
    assert "Not judged" not in page
    assert "| all | 0 | 0 (100.0%) | 0 |" in page


def test_it_says_where_only_the_quickest_tests_were_asked() -> None:
    assert QUICK in write_page({}, MODULES, quick=True)
    assert QUICK not in write_page({}, MODULES, quick=False)
