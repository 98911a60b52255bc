"""Garbage in settings: the error is one line that names the setting, not a traceback."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.cli.main import EXIT_USAGE, root
from reconciler.errors import SettingsError
from reconciler.settings import Settings, load_settings
from tests.unit.hostile.values import ODD_TEXT

REQUIRED = {
    "ORCHESTRATION_TABLE_NAME": "orchestrations",
    "TASK_TABLE_NAME": "tasks",
    "TASK_EVENTS_TABLE_NAME": "events",
}
NAMES = sorted(name.upper() for name in Settings.model_fields)
GARBAGE = st.one_of(
    st.sampled_from(
        [*ODD_TEXT, "-1", "0", "1e9", "9" * 400, "NaN", "inf", "0x10", "true", "None", "[]", "{}"]
    ),
    st.sampled_from(["redis://", "redis://:pw@h:99999/0", "http://x", "redis://[::1", "rediss://"]),
    st.text(max_size=30),
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), GARBAGE, max_size=4))
def test_settings_are_valid_or_refused_in_one_line(changes: dict[str, str]) -> None:
    try:
        found = load_settings({**REQUIRED, **changes})
    except SettingsError as error:
        said = str(error)
        assert len(said.splitlines()) == 1, said
        assert len(said) < 2000
        assert any(name in said for name in changes), said
    else:
        assert found.sweep_interval_seconds >= 1


@pytest.mark.parametrize("name", ["BROKER_PASSWORD", "TASK_TABLE_NAME"])
def test_bytes_that_are_not_utf8_are_refused(name: str) -> None:
    """The message names the setting."""
    with pytest.raises(SettingsError, match=f"^{name} is not UTF-8$"):
        load_settings({**REQUIRED, name: b"caf\xe9".decode(errors="surrogateescape")})


def test_each_problem_is_listed_separately() -> None:
    """Even if a value contains the separator."""
    with pytest.raises(SettingsError) as refused:
        load_settings({**REQUIRED, "REPAIR_MODE": "a; b", "SETTLE_MODE": "c"})
    names = [said.partition("=")[0] for said in refused.value.problems]
    assert names == ["REPAIR_MODE", "SETTLE_MODE"]
    assert str(refused.value) == "; ".join(refused.value.problems)


@pytest.mark.parametrize("text", [",", " , ", ",,"])
def test_a_list_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"REPAIR_ONLY_REPOS=.*is empty"):
        load_settings({**REQUIRED, "REPAIR_ONLY_REPOS": text})
    assert load_settings({**REQUIRED, "REPAIR_ONLY_REPOS": " "}).repair_only_repos == frozenset()


def test_monthly_budgets_need_the_user_pool() -> None:
    with pytest.raises(SettingsError, match="USER_POOL_ID is unset, but BUDGET_TABLE_NAME is"):
        load_settings({**REQUIRED, "BUDGET_TABLE_NAME": "budgets"})
    assert load_settings({**REQUIRED, "USER_POOL_ID": "pool"}).budget_table_name is None


NUMBERS = [n for n in NAMES if n.endswith(("_SECONDS", "_PER_USER", "_PER_MINUTE", "_PER_SECOND"))]
CHOICES = ["REPAIR_MODE", "SETTLE_MODE", "LOG_FORMAT", "LOG_LEVEL", "METRICS_EMF", "SWEEP_SEGMENTS"]


@pytest.mark.parametrize("value", ["-1", "many", "1e400", "\u0663\u00bd", "5 minutes", "\x1b[31m"])
@pytest.mark.parametrize("name", [*NUMBERS, *CHOICES])
def test_an_invalid_setting_exits_with_code_2(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message is one line and names the setting."""
    for required, given_ in REQUIRED.items():
        monkeypatch.setenv(required, given_)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        root.main(["sweep", "--inline"])
    assert ended.value.code == EXIT_USAGE
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1, said
    assert name in said
    assert "\x1b[31m\x1b" not in said
