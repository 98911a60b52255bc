"""The files for the forge and for editors are valid and match the project."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.commands import ROOT

GITHUB = ROOT / ".github"
WORKFLOW: dict[str, Any] = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCHEMAS = {
    "workflows/ci.yml": "github-workflows",
    "dependabot.yml": "dependabot",
    "ISSUE_TEMPLATE/bug.yml": "github-issue-forms",
    "ISSUE_TEMPLATE/idea.yml": "github-issue-forms",
    "ISSUE_TEMPLATE/config.yml": "github-issue-config",
}


def schema_finds(path: Path, schema: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", f"vendor.{schema}",
         str(path)],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout


@pytest.mark.parametrize(("name", "schema"), SCHEMAS.items())
def test_forge_files_match_their_schemas(name: str, schema: str) -> None:
    assert schema_finds(GITHUB / name, schema) == ""


def test_every_forge_file_is_checked() -> None:
    assert {str(path.relative_to(GITHUB)) for path in GITHUB.rglob("*.yml")} == set(SCHEMAS)


def test_the_schema_rejects_a_misspelled_key(tmp_path: Path) -> None:
    broken = tmp_path / "ci.yml"
    text = (GITHUB / "workflows" / "ci.yml").read_text()
    broken.write_text(text.replace("runs-on", "runs-at"))
    assert "runs-at" in schema_finds(broken, "github-workflows")


def test_the_workflow_runs_ci_on_supported_pythons() -> None:
    jobs = WORKFLOW["jobs"]
    assert {"run": "bash .ci/run"} in jobs["everything"]["steps"]
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for job in jobs.values():
        for step in job["steps"]:
            assert set(re.findall(r"make ([a-z-]+)$", step.get("run", ""))) <= targets
    pythons = jobs["everything"]["strategy"]["matrix"]["python"]
    assert f">={pythons[0]}" == PROJECT["project"]["requires-python"]
    classified = {c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"]}
    assert set(pythons) <= classified


def test_an_environment_variable_selects_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.embedded import valkey  # noqa: PLC0415 - only here

    assert Path(valkey.server_path()).is_file()
    monkeypatch.setenv("VALKEY_SERVER", "/usr/bin/redis-server")
    assert valkey.command(Path("here"), 1)[0] == "/usr/bin/redis-server"


def test_code_owners_own_existing_paths() -> None:
    lines = (GITHUB / "CODEOWNERS").read_text().splitlines()
    rules = [line.split() for line in lines if line and not line.startswith("#")]
    for pattern, *owners in rules:
        assert pattern == "*" or (ROOT / pattern.strip("/")).exists()
        assert owners
        assert all(owner.startswith("@") for owner in owners)


def test_hooks_run_the_locked_tools() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    lock = (ROOT / "requirements" / "dev.txt").read_text()
    programs = {"ruff": "ruff", "mypy": "mypy", "lint-imports": "import-linter"}
    for hook in local["hooks"]:
        directory, _, program = hook["entry"].split()[0].rpartition("/")
        assert directory == ".venv/bin"
        assert f"\n{programs[program]}==" in lock


@pytest.mark.parametrize(
    "package", PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
)
def test_packages_are_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def test_decisions_are_numbered_and_complete() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    assert len(records) >= 12
    for number, record in enumerate(records, 1):
        title, *text = record.read_text().splitlines()
        assert title.startswith(f"# {number}. ")
        assert record.name.startswith(f"{number:04d}-")
        parts = re.findall(r"^\*\*(\w+)\.\*\* \S", "\n".join(text), re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences"]


def test_the_guide_to_codes_names_existing_files() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add a diagnosis code")[2]
    paths = set(re.findall(r"`((?:reconciler|tests|docs|workers)/[\w/]+\.(?:py|md))`", guide))
    assert len(paths) > 10
    assert {path for path in paths if not (ROOT / path).exists()} == set()
    for name in re.findall(r"`(test_\w+\.py)`", guide):
        assert list((ROOT / "tests").rglob(name))
    for path in ("reconciler/domain/codes.py", "reconciler/domain/diagnosis.py",
                 "reconciler/domain/planning.py", "reconciler/inspection/theme.py"):  # fmt: skip
        assert path in paths
        assert "LOST_SKIP" in (ROOT / path).read_text()
