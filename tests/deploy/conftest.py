"""Run the tools of `make deploy-checks`; without its tool a test is skipped, or fails in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.stack import ALL, LEAST, LOGIN, PATH
from tests.support.cloudformation import Template, load_template

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tool() -> Tool:
    """Run a tool of the environment and return its output."""

    def start(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).parent / name
        if not program.exists():
            why = f"{name} is not installed: `make deploy-checks` installs it"
            if os.environ.get("CI"):
                pytest.fail(why)
            pytest.skip(why)
        return subprocess.run(
            [str(program), *arguments], capture_output=True, text=True, check=False, timeout=240
        )

    return start


@pytest.fixture(params=["least", "everything"])
def template(request: pytest.FixtureRequest) -> Template:
    """The template with only its required parameters, and with all of them."""
    more = ALL if request.param == "everything" else {"FlowerLoginSecretArn": LOGIN}
    return load_template(PATH, **LEAST, **more)
