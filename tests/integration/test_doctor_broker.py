"""What `reconciler doctor` says of the broker, and the rights that it needs itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis

from reconciler.clock import utc_now
from reconciler.doctor.broker import _server, examine_broker
from reconciler.doctor.findings import Finding, Level
from reconciler.embedded.valkey import valkey_server
from reconciler.settings import Settings
from tests.integration import test_policy
from tests.integration.doctored import BY_INDEX, DOCTOR_POLICY, LIGHTER, SETTINGS, look
from tests.integration.test_policy import EVERYTHING, OTHER_SERVICES
from tests.support.aws_stub import aws_stub
from tests.support.world import World

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def ask(settings: Settings, seconds_ahead: float = 0.0, **changes: Any) -> dict[str, Finding]:
    def clock() -> Any:
        return utc_now() + timedelta(seconds=seconds_ahead)

    found = examine_broker(settings.model_copy(update=changes), clock)
    return {finding.subject: finding for finding in found}


def test_a_durable_broker_passes_every_check(broker: str) -> None:
    urls: dict[str, Any] = {
        "celery_broker_url": f"{broker}/0",
        "celery_result_backend": f"{broker}/1",
    }
    found = ask(SETTINGS, **urls)
    assert {f.level for f in found.values()} == {Level.OK}
    assert set(found) == {
        "server", "writes", "eviction", "persistence", "transport", "results", "the broker"
    }  # fmt: skip
    assert ask(SETTINGS, 300, **urls)["the broker"].level is Level.FAILURE


def test_an_old_server_needs_a_supported_version() -> None:
    for old in ("5.0.14", "7.1.0"):
        found = _server("redis://b", {"redis_version": old})
        assert (found.level, found.advice) == (Level.FAILURE, "use Valkey or Redis, 7.2 or later")
    for sound in ("7.2.4", "10.0.1", "unstable"):
        assert _server("redis://b", {"redis_version": sound}).level is Level.OK
    page = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
    assert "Valkey 7.2 and later; Redis 7.2 and later" in page


def test_eviction_persistence_and_password_are_checked(tmp_path: Path) -> None:
    with valkey_server(tmp_path, durable=False) as url:
        client = redis.Redis.from_url(url)
        client.config_set("maxmemory-policy", "allkeys-lru")
        here: dict[str, Any] = {
            "celery_broker_url": f"{url}/0",
            "celery_result_backend": f"{url}/1",
        }
        assert ask(SETTINGS, **here)["eviction"].level is Level.WARNING
        client.config_set("maxmemory", "100mb")
        found = ask(SETTINGS, **here)
        assert found["eviction"].level is Level.FAILURE
        assert "noeviction" in found["eviction"].advice
        assert found["persistence"].level is Level.WARNING
        client.config_set("requirepass", "not-this-one")
        refused = ask(SETTINGS, **here)["reachable"]
        assert refused.level is Level.FAILURE
        assert "NOAUTH" in refused.found
        assert "BROKER_PASSWORD" in refused.advice
        host = url.removeprefix("redis://")
        wrong = ask(SETTINGS, celery_broker_url=f"redis://ann:hunter2@{host}/0")["reachable"]
        assert "WRONGPASS" in wrong.found
        assert "hunter2" not in repr(wrong)


def test_a_restricted_broker_user_is_no_failure(tmp_path: Path) -> None:
    """The user needs only the rights that the work takes."""
    with valkey_server(tmp_path) as url:
        rights = ("+@all", "-info", "-time", "-config|get")
        admin: Any = redis.Redis.from_url(url)
        admin.execute_command("ACL", "SETUSER", "narrow", "on", ">word", "~*", "&*", *rights)
        narrow = url.replace("redis://", "redis://narrow:word@")
        found = ask(SETTINGS, celery_broker_url=f"{narrow}/0", celery_result_backend=f"{narrow}/1")
    assert found["server"].level is Level.OK
    assert [f.subject for f in found.values() if f.level is not Level.OK] == ["eviction"]
    assert "word@" not in repr(found)


def test_an_unreachable_broker_is_a_failure() -> None:
    """It is only a warning if no broker is configured."""
    nowhere = "redis://127.0.0.1:9/0"
    assert ask(SETTINGS, celery_broker_url=nowhere)["reachable"].level is Level.FAILURE
    values = {**SETTINGS.model_dump(), "celery_broker_url": nowhere}
    silent = Settings.model_construct({"task_table_name"}, **values)
    # No broker is configured, as in cron mode.
    assert ask(silent)["reachable"].level is Level.WARNING


# -- what the doctor itself needs


def granted(policy: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    monkeypatch.setattr(test_policy, "POLICY", policy)
    return test_policy.granted(world)


@LIGHTER
@pytest.mark.parametrize("more", [{}, BY_INDEX], ids=["by scan", "by index"])
def test_the_doctor_needs_exactly_its_two_policies(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, more: dict[str, str]
) -> None:
    """It tries every right of the workers' policy, and needs its own policy besides."""
    with aws_stub() as aws:
        world = make_world(**EVERYTHING, **more)
        world.others = dict.fromkeys(OTHER_SERVICES, aws.url)
        world.client = boto3.Session("testing", "testing", region_name="us-east-1").client(
            "dynamodb", endpoint_url=world.endpoint
        )
        made = test_policy.record(monkeypatch)
        look(world)
    ours = granted(test_policy.POLICY, world, monkeypatch)
    added = granted(DOCTOR_POLICY, world, monkeypatch)
    both: dict[str, set[str]] = defaultdict(set)
    for policy in (ours, added):
        for resource, actions in policy.items():
            assert not actions & both[resource]
            both[resource] |= actions
    assert dict(made) == dict(both)
