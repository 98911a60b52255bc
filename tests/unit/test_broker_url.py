"""The broker's address has one form for five clients, and its password is never shown."""

from __future__ import annotations

import ssl

import pytest
import redis
from kombu.utils.url import parse_url
from redis.connection import SSLConnection

from reconciler.broker_url import login_of, normalised, shown, tls_options
from reconciler.errors import SettingsError
from reconciler.settings import Settings, load_settings

TABLES = {
    "ORCHESTRATION_TABLE_NAME": "orchestrations",
    "TASK_TABLE_NAME": "tasks",
    "TASK_EVENTS_TABLE_NAME": "events",
}
HARD = "p@ss:w/o?r#d %41"


def load(**changes: str) -> Settings:
    return load_settings({**TABLES, **changes})


def test_a_plain_address_is_unchanged() -> None:
    assert normalised("redis://broker:6379/0") == "redis://broker:6379/0"
    assert tls_options("redis://broker:6379/0") is None


@pytest.mark.parametrize(
    ("given", "verify"),
    [
        ("", ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=CERT_REQUIRED", ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=required", ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=CERT_NONE", ssl.CERT_NONE),
        ("?ssl_ca_certs=/etc/ca.pem", ssl.CERT_REQUIRED),
    ],
)
def test_tls_verifies_unless_told_otherwise(given: str, verify: ssl.VerifyMode) -> None:
    url = normalised(f"rediss://broker:6379/0{given}")
    options = tls_options(url)
    assert options is not None
    assert options["ssl_cert_reqs"] is verify
    # kombu and redis-py have to agree on the same address.
    assert parse_url(url)["ssl"]["ssl_cert_reqs"] is verify
    connection = redis.Redis.from_url(url).connection_pool.make_connection()
    assert isinstance(connection, SSLConnection)
    assert connection.cert_reqs is verify
    assert connection.check_hostname is (verify is not ssl.CERT_NONE)
    assert connection.ca_certs == options.get("ssl_ca_certs")


@pytest.mark.parametrize("url", ["rediss://broker/0", "rediss://name@broker/0"])
def test_separate_login_settings_are_taken_raw(url: str) -> None:
    """They are not percent-encoded."""
    loaded = load(
        CELERY_BROKER_URL=url,
        CELERY_RESULT_BACKEND=url,
        BROKER_USERNAME="name",
        BROKER_PASSWORD=HARD,
    )
    for address in (loaded.celery_broker_url, loaded.celery_result_backend):
        assert login_of(address) == ("name", HARD)
        assert parse_url(address)["password"] == HARD
        assert redis.Redis.from_url(address).connection_pool.connection_kwargs["password"] == HARD


def test_the_default_address_gets_the_login_too() -> None:
    assert load(BROKER_PASSWORD="s").celery_broker_url == "redis://:s@localhost:6379/0"


def test_a_login_in_the_address_wins() -> None:
    loaded = load(CELERY_BROKER_URL="redis://a:b@broker/0", BROKER_PASSWORD="other")
    assert login_of(loaded.celery_broker_url) == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "named", "why"),
    [
        ({"CELERY_BROKER_URL": "amqp://u:secret@broker//"}, "CELERY_BROKER_URL", "rediss://"),
        (
            {"CELERY_BROKER_URL": "redis://u:sec/secret@broker"},
            "CELERY_BROKER_URL",
            "percent-encoded",
        ),
        ({"CELERY_BROKER_URL": "redis://u:secret@[broker"}, "CELERY_BROKER_URL", "percent-encoded"),
        ({"CELERY_BROKER_URL": "redis://u:secret@"}, "CELERY_BROKER_URL", "no host"),
        ({"CELERY_BROKER_URL": "redis://u:secret@b/jobs"}, "CELERY_BROKER_URL", "such as /0"),
        (
            {"CELERY_BROKER_URL": "redis://u:secret@b?socket_timeout=x"},
            "CELERY_BROKER_URL",
            "socket_timeout is not one of",
        ),
        (
            {"CELERY_RESULT_BACKEND": "redis://u:secret@b/0?ssl_cert_reqs=none"},
            "CELERY_RESULT_BACKEND",
            "rediss://",
        ),
        ({"CELERY_BROKER_URL": "rediss://u:secret@b?ssl_cert_reqs=maybe"}, "CELERY_BROKER_URL", ""),
        (
            {"CELERY_BROKER_URL": "rediss://u:secret@b?ssl_check_hostname=false"},
            "CELERY_BROKER_URL",
            "ssl_check_hostname",
        ),
        ({"CELERY_BROKER_URL": "redis:/u:secret@broker/0"}, "CELERY_BROKER_URL", "no host"),
        ({"CELERY_BROKER_URL": "u:secret@broker:6379"}, "CELERY_BROKER_URL", "rediss://"),
        ({"CELERY_BROKER_URL": "http://b/0?password=secret"}, "CELERY_BROKER_URL", "rediss://"),
        ({"BROKER_USERNAME": "name"}, "BROKER_PASSWORD", "unset"),
        ({"BROKER_PASSWORD": "secret", "CELERY_BROKER_URL": "broker"}, "CELERY_BROKER_URL", ""),
    ],
)
def test_an_invalid_address_fails_without_showing_the_password(
    changes: dict[str, str], named: str, why: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        load(**changes)
    said = str(raised.value)
    assert named in said
    assert why in said
    assert "\n" not in said
    assert "secret" not in said
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_printed_settings_show_no_password() -> None:
    loaded = load(CELERY_BROKER_URL="redis://u:secret@b/0", BROKER_PASSWORD="secret")
    assert "secret" not in repr(loaded)
    assert "secret" not in str(loaded)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://broker/0", "redis://broker/0"),
        ("rediss://u:p@ss@broker/0", "rediss://u:**@broker/0"),
        ("redis://:secret@broker", "redis://:**@broker"),
        ("redis:/u:secret@broker", "**@broker"),
        ("redis://broker/0?password=secret&db=1", "redis://broker/0?password=**&db=1"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_shown_address_hides_its_password(url: str, said: str) -> None:
    assert shown(url) == said
