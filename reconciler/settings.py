"""Settings: the only place that reads and checks the environment.

The names are the platform's own, so that one task definition serves both. ``docs/settings.md`` is
generated from the docstrings of the settings.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from reconciler import broker_url
from reconciler.errors import SettingsError

DAY_SECONDS = 86_400
MAX_SEGMENTS = 100_000
_MAX_SHOWN_CHARACTERS = 120
_SURROGATE = re.compile("[\ud800-\udfff]")
"""Stands for a byte of the environment that is not UTF-8."""


def _split(value: object) -> object:
    """Turn ``a, b`` into a set."""
    if not isinstance(value, str):
        return value
    found = frozenset(part.strip() for part in value.split(",") if part.strip())
    if value.strip() and not found:
        # An empty set means all, which is not what was meant here.
        raise ValueError("it is empty; unset it for all")
    return found


def _segments(value: object) -> object:
    said = str(value).strip()
    if said == "auto":
        return said
    if said.isdecimal() and 1 <= int(said) <= MAX_SEGMENTS:
        return int(said)
    raise ValueError(f"it must be `auto` or a number from 1 to {MAX_SEGMENTS}")


NameSet = Annotated[frozenset[str], BeforeValidator(_split)]
Segments = Annotated[Literal["auto"] | int, BeforeValidator(_segments)]

_NEEDS = (
    ("broker_username", "broker_password", "one needs both"),
    ("budget_table_name", "user_pool_id", "monthly budgets need both"),
    ("guardrail_id", "guardrail_version", "a guardrail needs both"),
    ("guardrail_version", "guardrail_id", "a guardrail needs both"),
)
"""A setting, another one that it needs, and why."""


class Settings(BaseModel):
    """Everything an operator can set; see ``load_settings``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    # The tables
    orchestration_table_name: str = Field(min_length=3, max_length=255)
    """OrchestrationTable"""
    task_table_name: str = Field(min_length=3, max_length=255)
    """TaskTable"""
    task_events_table_name: str = Field(min_length=3, max_length=255)
    """TaskEventsTable"""
    user_concurrency_table_name: str | None = None
    """UserConcurrencyTable; unset: no budget per user"""
    max_concurrent_tasks_per_user: int = Field(default=10, ge=1, le=10_000)
    """Cap of the budget per user"""
    repo_table_name: str | None = None
    """RepoTable; unset: every repo counts as onboarded"""
    budget_table_name: str | None = None
    """BudgetTable; unset: no monthly budgets. Needs USER_POOL_ID"""
    user_pool_id: str | None = None
    """Cognito user pool whose groups are the teams that have monthly budgets"""

    # What else a release touches
    orchestrator_function_arn: str | None = None
    """The task pipeline (Lambda); unset: tasks are created but not invoked"""
    guardrail_id: str | None = None
    """Bedrock guardrail for task descriptions; unset: no screening"""
    guardrail_version: str | None = None
    """Version of the guardrail; goes with GUARDRAIL_ID"""

    # Celery. The login comes first, because it is put into the URLs.
    broker_username: str | None = None
    """User for broker and result backend, if their URLs name none"""
    broker_password: SecretStr | None = None
    """Password for both, if their URLs contain none: raw, not percent-encoded"""
    celery_broker_url: str = Field(
        default="redis://localhost:6379/0", validate_default=True, repr=False
    )
    """Broker, a redis:// or rediss:// URL"""
    celery_result_backend: str = Field(
        default="redis://localhost:6379/1", validate_default=True, repr=False
    )
    """Result backend, a redis:// or rediss:// URL"""

    # When
    sweep_interval_seconds: int = Field(default=300, ge=1, le=DAY_SECONDS)
    """Time between two sweeps, in seconds"""
    sweep_segments: Segments = "auto"
    """Segments of the parallel scan: a number, or chosen from the table's size"""
    active_index_name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.-]{3,255}$",
        description="Index of OrchestrationTable by `child_status`; set: sweeps read active "
        "children from it, and the whole table in rotation; see scaling.md",
    )
    full_scan_interval_seconds: int = Field(
        default=6 * 3600,
        ge=1,
        le=7 * DAY_SECONDS,
        description="How often to look for lost recoveries; with ACTIVE_INDEX_NAME also how often "
        "to read the whole table",
    )
    stranded_grace_seconds: int = Field(default=120, ge=0, le=DAY_SECONDS)
    """How long a child must have been due before it counts as stranded"""
    claim_timeout_seconds: int = Field(default=900, ge=1, le=7 * DAY_SECONDS)
    """Age at which a `releasing` claim counts as abandoned"""
    task_start_timeout_seconds: int = Field(default=900, ge=1, le=7 * DAY_SECONDS)
    """Age at which a `SUBMITTED` task counts as never started"""
    long_running_seconds: int = Field(default=DAY_SECONDS, ge=1, le=365 * DAY_SECONDS)
    """Age at which an unfinished task is reported as stuck"""

    # How far it may go
    repair_mode: Literal["repair", "report"] = "repair"
    """`report`: report what is stuck, change nothing"""
    settle_mode: Literal["nudge", "off"] = "nudge"
    """`off`: only report unsettled parents"""
    repair_only_repos: NameSet = frozenset()
    """Comma-separated `owner/name`: repair only these (empty: all)"""
    repair_only_users: NameSet = frozenset()
    """Comma-separated platform user ids: repair only theirs (empty: all)"""
    release_rate_per_minute: int = Field(default=600, ge=1, le=1_000_000)
    """Maximum releases per minute, over all workers"""
    scan_read_units_per_second: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Limit for scans, in read units per second over all segments and workers; "
        "scans slow down when throttled in any case",
    )

    # What it says
    metrics_emf: bool = False
    """Also write metrics as CloudWatch embedded metric format lines"""
    metrics_namespace: str = Field(
        default="OrchestrationReconciler", pattern=r"^[A-Za-z0-9._/#:-]{1,255}$"
    )
    """CloudWatch namespace of those lines; each deployment needs its own"""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: readable on a terminal, JSON lines elsewhere"""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe level that is logged"""

    @field_validator("celery_broker_url", "celery_result_backend")
    @classmethod
    def _with_login(cls, url: str, info: ValidationInfo) -> str:
        password: SecretStr | None = info.data.get("broker_password")
        return broker_url.normalised(
            url,
            info.data.get("broker_username"),
            password.get_secret_value() if password is not None else None,
        )

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> Self:
        for given, needed, why in _NEEDS:
            if getattr(self, given) is not None and getattr(self, needed) is None:
                raise ValueError(f"{needed.upper()} is unset, but {given.upper()} is set: {why}")
        return self

    @property
    def main_tables(self) -> list[str]:
        """The tables that identify a deployment."""
        return [self.orchestration_table_name, self.task_table_name, self.task_events_table_name]

    @property
    def deployment_id(self) -> str:
        """Identifies this deployment's keys and messages in the broker.

        It does not depend on region and endpoint, because Beat and Flower need neither, and a shell
        often has another region.
        """
        return hashlib.sha256("\n".join(self.main_tables).encode()).hexdigest()[:12]


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check the settings, by default from the process's environment.

    Raises:
        SettingsError: a setting is missing or invalid; one line names all of them.
    """
    source = os.environ if environ is None else environ
    values = {name: source.get(name.upper()) for name in Settings.model_fields}
    given = {name: value for name, value in values.items() if value}
    unreadable = [name.upper() for name, value in given.items() if _SURROGATE.search(value)]
    if unreadable:
        # Such values could not be sent or shown anywhere.
        raise SettingsError(*(f"{name} is not UTF-8" for name in unreadable))
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError(*_problems_of(error)) from None


def _problems_of(error: ValidationError) -> list[str]:
    parts: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]).upper() if problem["loc"] else ""
        said = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            said = f"{name} is required, but it is not set"
        elif name:
            given = _shown(name, problem["input"])
            said = f"{name}={given} is invalid: {said[0].lower()}{said[1:]}"
        parts[name] = said
    return list(parts.values())


def _shown(name: str, given: object) -> str:
    """Return a value for a message: shortened, and without the broker's password."""
    if name == "BROKER_PASSWORD":
        return repr(broker_url.MASK)
    if isinstance(given, str) and name.startswith("CELERY_"):
        given = broker_url.shown(given)
    said = repr(given)
    return said if len(said) <= _MAX_SHOWN_CHARACTERS else f"{said[:_MAX_SHOWN_CHARACTERS]}…"
