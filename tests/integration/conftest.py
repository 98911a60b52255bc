"""The order of the integration tests."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with few tests first.

    They take the longest, and one process runs a whole file. If such a file came last, the other
    processes would wait for it.
    """
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: (sizes[item.path], item.path))
