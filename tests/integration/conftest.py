"""The order of the integration tests."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of few tests.

    They take the longest, and a file is played by one process: at the end of a run the others would
    wait for it.
    """
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: (sizes[item.path], item.path))
