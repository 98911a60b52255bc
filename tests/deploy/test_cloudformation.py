"""The CloudFormation template: valid, least in its rights, and of one mind with the program."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.conftest import Tool
from tests.deploy.stack import PATH


def test_cfn_lint_finds_nothing(tool: Tool) -> None:
    done = tool("cfn-lint", "--include-checks", "I", "--format", "parseable", "--", str(PATH))
    assert (done.returncode, done.stdout) == (0, "")


def test_cfn_lint_would_find_something(tool: Tool, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(PATH.read_text().replace("TransitEncryptionEnabled", "TransitEncryption"))
    done = tool("cfn-lint", "--format", "parseable", "--", str(broken))
    assert done.returncode != 0
    assert "TransitEncryption" in done.stdout
