"""The command line is tested on one endpoint; the code beneath it is tested on both."""

from __future__ import annotations

import pytest

from tests.conftest import Servers


@pytest.fixture
def endpoint(servers: Servers) -> str:
    """The lighter of the two."""
    return servers.endpoint("moto")
