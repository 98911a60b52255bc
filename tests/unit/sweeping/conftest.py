"""Sweepers for the tests of this directory."""

from __future__ import annotations

import pytest

from tests.unit.sweeping.swept import Swept


@pytest.fixture
def swept() -> Swept:
    return Swept()


@pytest.fixture
def indexed() -> Swept:
    return Swept(settings={"active_index_name": "ByStatus", "sweep_segments": 2})
