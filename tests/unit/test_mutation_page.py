"""The page on mutants keeps the result of a module until the module is judged again."""

from __future__ import annotations

from tests.mutation.page import QUICK, Judged, read_page, write_page

MODULES = ("pkg.first", "pkg.second", "pkg.third")
SECOND = Judged(10, ("`a < b` → `a <= b`: they are never equal", "`1` → `2`: it is no number"))


def test_a_written_page_can_be_read_back() -> None:
    judged = {"pkg.first": Judged(3), "pkg.second": SECOND}
    assert read_page(write_page(judged, MODULES, quick=True)) == judged


def test_modules_keep_their_order_and_are_totalled() -> None:
    page = write_page({"pkg.second": SECOND, "pkg.first": Judged(3)}, MODULES, quick=False)
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| `pkg.first` | 3 | 3 | 0 |",
        "| `pkg.second` | 10 | 8 | 2 |",
        "| all | 13 | 11 (84.6%) | 2 |",
    ]
    assert "Not judged yet: `pkg.third`.\n" in page
    assert page.count("## Survivors") == 1


def test_a_removed_module_leaves_the_page() -> None:
    """If every other module is judged, none is listed as not judged."""
    page = write_page({"pkg.gone": SECOND, "pkg.first": Judged(0)}, ("pkg.first",), quick=False)
    assert "gone" not in page
    assert "Not judged" not in page
    assert "| all | 0 | 0 (100.0%) | 0 |" in page


def test_a_quick_run_is_marked_as_such() -> None:
    assert QUICK in write_page({}, MODULES, quick=True)
    assert QUICK not in write_page({}, MODULES, quick=False)
