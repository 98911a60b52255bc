"""The linter accepts the CloudFormation template."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.conftest import Tool
from tests.deploy.stack import PATH


def test_cfn_lint_finds_nothing(tool: Tool) -> None:
    done = tool("cfn-lint", "--include-checks", "I", "--format", "parseable", "--", str(PATH))
    assert (done.returncode, done.stdout) == (0, "")


def test_cfn_lint_finds_a_misspelled_property(tool: Tool, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(PATH.read_text().replace("TransitEncryptionEnabled", "TransitEncryption"))
    done = tool("cfn-lint", "--format", "parseable", "--", str(broken))
    assert done.returncode != 0
    assert "TransitEncryption" in done.stdout
