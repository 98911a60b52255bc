"""The services of the compose file as processes: their commands, in exactly their environment.

Only addresses, ports and directories differ, which a container network and its volumes would give.
"""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from reconciler.embedded import valkey
from reconciler.embedded.loopback import Answer, Handler, serving
from reconciler.embedded.process import EmbeddedServerError, answers_http, free_port, running
from tests.conftest import Servers
from tests.support import dynamodb_local
from tests.support.compose import Service, services_of
from tests.support.processes import BEAT_READY, PATIENCE_SECONDS, ROOT, WORKER_READY, until
from tests.support.world import build_world, make_client

pytestmark = [pytest.mark.integration, pytest.mark.workers]

PROGRAMS = {
    "celery": (sys.executable, "-m", "celery"),
    "reconciler": (sys.executable, "-m", "reconciler.cli.main"),
    "python": (sys.executable,),
    "sh": ("/bin/sh",),
}
SHELL = {"SWEEP_INTERVAL_SECONDS": "1", "WORKER_CONCURRENCY": "1"}
PASSWORDS = {
    f"BROKER_{role}_PASSWORD": f"{role}/of&the$broker"
    for role in ("WORKER", "BEAT", "FLOWER", "EXPORTER")
}


@dataclass
class Machine:
    """Runs the services of a profile; ``shell`` holds the variables that the user has set."""

    profile: str
    directory: Path
    shell: Mapping[str, str]
    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = services_of(self.profile, self.shell)
        self.ports = {name: free_port() for name in ("broker", "dynamodb", "flower", "metrics")}

    def here(self, text: str) -> str:
        """Replace the containers' addresses and directories in ``text`` by this machine's."""
        for theirs, ours in {
            "//broker:6379": f"//127.0.0.1:{self.ports['broker']}",
            "//dynamodb:8000": f"//127.0.0.1:{self.ports['dynamodb']}",
            "=0.0.0.0": "=127.0.0.1",
            "5555": str(self.ports["flower"]),
            "9464": str(self.ports["metrics"]),
            "/var/lib/flower": str(self.directory),
            "/app": str(self.directory),
            "/data": str(self.directory),
            "/etc/valkey": str(ROOT / "deploy" / "valkey"),
        }.items():
            text = text.replace(theirs, ours)
        return text

    def started(self, service: Service, command: list[str]) -> list[str]:
        """Return the command line that runs a command in the environment of a service."""
        set_ = [f"{name}={self.here(value)}" for name, value in service["environment"].items()]
        program, *arguments = command
        # A container has its own directory for temporary files.
        own = ["PATH=/usr/bin:/bin", f"TMPDIR={self.directory}"]
        return ["env", "-i", *own, *set_, *PROGRAMS[program], *map(self.here, arguments)]

    def run(self, name: str, ready: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Run one of our services; it writes ``ready`` when it is ready."""
        service = self.services[name]
        log = self.directory / f"{name}.log"
        return running(
            self.started(service, service["command"]),
            ready=lambda: ready in log.read_text(errors="replace"),
            log=log,
            timeout_seconds=PATIENCE_SECONDS,
            cwd=ROOT,
        )

    def broker(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Run the broker on its volume, with stand-ins for its image's server and entry point."""
        image = self.directory / "image"
        image.mkdir()
        (image / "valkey-server").symlink_to(valkey.server_path())
        entry_point = image / "docker-entrypoint.sh"
        entry_point.write_text('#!/bin/sh\nexec "$@"\n')
        entry_point.chmod(0o755)
        service = self.services["broker"]
        where = ["--port", str(self.ports["broker"]), "--dir", str(self.directory)]
        command = [*service["command"], *where, "--bind", "127.0.0.1"]
        started = self.started(service, command)
        started[started.index("PATH=/usr/bin:/bin")] = f"PATH={image}:/usr/bin:/bin"
        return running(
            started,
            ready=lambda: _listens(self.ports["broker"]),
            log=self.directory / "broker.log",
        )

    def emulator(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Run DynamoDB Local on its volume; the entry point of its image is ``java``."""
        unpacked = dynamodb_local.install()
        options = map(self.here, self.services["dynamodb"]["command"])
        library = f"-Djava.library.path={unpacked / 'DynamoDBLocal_lib'}"
        port = str(self.ports["dynamodb"])
        return running(
            [dynamodb_local.java(), library, *options, "-port", port],
            ready=lambda: answers_http(f"http://127.0.0.1:{port}"),
            log=self.directory / "dynamodb.log",
            cwd=unpacked,
        )

    def is_healthy(self, name: str) -> bool:
        """Ask as Docker does."""
        service = self.services[name]
        kind, *probe = service["healthcheck"]["test"]
        assert kind == "CMD"
        done = subprocess.run(
            self.started(service, probe), cwd=ROOT, capture_output=True, check=False
        )
        return done.returncode == 0

    def python(self, name: str, code: str) -> str:
        """Return what a program prints in a service's environment."""
        command = self.started(self.services[name], ["python", "-c", code])
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def _watched(machine: Machine, stack: ExitStack, worker: str, beat: str) -> None:
    """Run worker, beat, Flower and exporter until each is healthy."""
    stack.enter_context(machine.run(worker, WORKER_READY))
    stack.enter_context(machine.run(beat, BEAT_READY))
    stack.enter_context(machine.run("flower", "Visit me at"))
    stack.enter_context(machine.run("metrics", "serving"))
    for name in (worker, beat, "flower", "metrics"):
        until(f"{name} to be healthy", lambda name=name: machine.is_healthy(name))  # type: ignore[misc]
    with urllib.request.urlopen(f"http://127.0.0.1:{machine.ports['metrics']}/metrics") as answer:
        assert "reconciler_broker_up 1.0" in answer.read().decode()


def test_the_local_profile_repairs_and_keeps_data(tmp_path: Path, stack: ExitStack) -> None:
    """The data survive a restart of the emulator, and a deleted table is created again."""
    machine = Machine("local", tmp_path, SHELL)
    stack.enter_context(machine.broker())
    client = make_client(f"http://127.0.0.1:{machine.ports['dynamodb']}")
    with machine.emulator(), machine.run("tables", "the tables exist"):
        assert machine.is_healthy("tables")
        client.delete_table(TableName="TaskTable")
        until("the table to be back", lambda: "TaskTable" in client.list_tables()["TableNames"])
        _strand(machine)
        with ExitStack() as ours:
            _watched(machine, ours, "worker-local", "beat-local")
            until(
                "the stranded child to be released",
                lambda: client.scan(TableName="TaskTable")["Count"],
            )
        log = (tmp_path / "flower.log").read_text()
        assert "log in as operator with the password" in log
        before = client.scan(TableName="OrchestrationTable")["Count"]
    with machine.emulator():
        assert client.scan(TableName="OrchestrationTable")["Count"] == before
    assert redis.Redis(port=machine.ports["broker"]).config_get("appendonly") == {
        "appendonly": "yes"
    }


def _strand(machine: Machine) -> None:
    service = machine.services["tables"]
    command = machine.started(service, ["reconciler", "tables", "--sample"])
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_the_aws_profile_works_with_a_named_profile(
    tmp_path: Path, stack: ExitStack, servers: Servers
) -> None:
    """The AWS profile here has one setting that a user's does not: the emulator's endpoint."""
    endpoint = servers.endpoint("dynamodb_local")
    world = build_world(endpoint)
    tables = {name: value for name, value in world.environment.items() if "TABLE" in name}
    write_config(tmp_path, f"{KEYS}\nservices = here\n[services here]\ndynamodb =\n  "
                 f"endpoint_url = {endpoint}\n")  # fmt: skip
    shell = {**SHELL, **tables, **PASSWORDS, "AWS_PROFILE": "backstop"}
    machine = Machine("aws", tmp_path, shell)
    stack.enter_context(machine.broker())
    _watched(machine, stack, "worker", "beat")
    # Each service has its own login, and the broker refuses clients without one.
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis(port=machine.ports["broker"]).ping()


def test_one_missing_password_stops_the_broker(tmp_path: Path) -> None:
    shell = {**PASSWORDS, "BROKER_BEAT_PASSWORD": ""}
    with (
        pytest.raises(EmbeddedServerError, match="not set: BROKER_BEAT_PASSWORD"),
        Machine("aws", tmp_path, shell).broker(),
    ):
        pass


# -- credentials

KEYS = "aws_access_key_id = AKIDPROFILE\naws_secret_access_key = not-a-secret"
CREDENTIALS = """
import json
from reconciler.composition import aws_session
session = aws_session()
found = session.get_credentials()
frozen = found.get_frozen_credentials() if found else None
print(json.dumps([found and found.method, frozen and frozen.access_key, frozen and frozen.token,
                  session.region_name]))
"""
ROLE_ANSWER = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleResult><Credentials><AccessKeyId>AKIDROLE</AccessKeyId><SecretAccessKey>x
</SecretAccessKey><SessionToken>of the role</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>
"""
SSO_ANSWER = json.dumps(
    {"roleCredentials": {"accessKeyId": "AKIDSSO", "secretAccessKey": "x",
                         "sessionToken": "of the login", "expiration": 4070908800000}}
)  # fmt: skip


def write_config(home: Path, text: str) -> None:
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text(
        f"[profile backstop]\nregion = eu-central-1\n{text}", encoding="utf-8"
    )


class _Aws(Handler):
    """STS and the SSO portal."""

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        self.take()
        self.give(Answer(200, ROLE_ANSWER.encode(), {"Content-Type": "text/xml"}))

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        assert self.headers["x-amz-sso_bearer_token"] == "logged in"
        self.give(Answer(200, SSO_ANSWER.encode(), {"Content-Type": "application/json"}))


def _asked(home: Path, **shell: str) -> list[str | None]:
    found: list[str | None] = json.loads(Machine("aws", home, shell).python("worker", CREDENTIALS))
    return found


def test_an_empty_environment_gives_no_credentials(tmp_path: Path) -> None:
    # The test must not use a role of the machine that it runs on.
    machine = Machine("aws", tmp_path, {})
    machine.services["worker"]["environment"]["AWS_EC2_METADATA_DISABLED"] = "true"
    assert json.loads(machine.python("worker", CREDENTIALS)) == [None, None, None, None]


def test_a_session_token_is_passed_on(tmp_path: Path) -> None:
    asked = _asked(tmp_path, AWS_REGION="eu-west-1", AWS_ACCESS_KEY_ID="AKIDTEMPORARY",
                   AWS_SECRET_ACCESS_KEY="x", AWS_SESSION_TOKEN="token")  # fmt: skip
    assert asked == ["env", "AKIDTEMPORARY", "token", "eu-west-1"]


def test_a_named_profile_gives_its_credentials(tmp_path: Path) -> None:
    write_config(tmp_path, KEYS)
    assert _asked(tmp_path, AWS_PROFILE="backstop") == [
        "config-file", "AKIDPROFILE", None, "eu-central-1",
    ]  # fmt: skip


def test_a_role_is_assumed(tmp_path: Path) -> None:
    with serving(_Aws) as url:
        write_config(
            tmp_path,
            "role_arn = arn:aws:iam::123456789012:role/reconciler\nsource_profile = base\n"
            "services = here\n"
            f"[profile base]\n{KEYS}\n[services here]\nsts =\n  endpoint_url = {url}\n",
        )
        asked = _asked(tmp_path, AWS_PROFILE="backstop")
    assert asked == ["assume-role", "AKIDROLE", "of the role", "eu-central-1"]


def test_an_sso_login_is_used(tmp_path: Path) -> None:
    with serving(_Aws) as url:
        write_config(
            tmp_path,
            "sso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Reconciler\n"
            "services = here\n"
            "[sso-session corp]\nsso_region = eu-central-1\nsso_start_url = https://corp.example\n"
            f"[services here]\nsso =\n  endpoint_url = {url}\n",
        )
        cache = tmp_path / ".aws" / "sso" / "cache"
        cache.mkdir(parents=True)
        key = hashlib.sha1(b"corp", usedforsecurity=False).hexdigest()
        token = {"accessToken": "logged in", "expiresAt": "2099-01-01T00:00:00Z"}
        (cache / f"{key}.json").write_text(json.dumps(token), encoding="utf-8")
        asked = _asked(tmp_path, AWS_PROFILE="backstop")
    assert asked == ["sso", "AKIDSSO", "of the login", "eu-central-1"]
