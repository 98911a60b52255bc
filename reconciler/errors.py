"""Errors in two families: temporary (tried again) and permanent (shown to a person).

Losing a race is not an error; it is an outcome with a name (``reconciler.domain.outcomes``).
"""

from __future__ import annotations

from collections.abc import Iterator


class ReconcilerError(Exception):
    """Root of everything this package raises on purpose; ``str()`` is one line for a person.

    ``kind``: the value of the metric label ``reconciler_errors_total{kind}`` and of the log field.
    ``is_outage``: it concerns no single orchestration.
    """

    kind = "error"
    is_outage = False

    def __init_subclass__(cls, *, kind: str | None = None, is_outage: bool | None = None) -> None:
        """Take both from the class statement; what is not given there is the parent's."""
        super().__init_subclass__()
        if kind is not None:
            cls.kind = kind
        if is_outage is not None:
            cls.is_outage = is_outage


class SettingsError(ReconcilerError, kind="settings", is_outage=True):
    """Settings are invalid; each of ``problems`` names one."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class UsageError(ReconcilerError, kind="usage"):
    """The caller named something that does not exist or is malformed."""


class UnknownOrchestrationError(UsageError, kind="unknown_orchestration"):
    """No row of this orchestration exists."""


class UnknownChildError(UsageError, kind="unknown_child"):
    """The orchestration exists, and this child does not."""


class TemporaryError(ReconcilerError):
    """May go away by itself: nothing was changed, and it is tried again."""


class StoreUnavailableError(TemporaryError, kind="store_unavailable", is_outage=True):
    """A table could not be reached, or answered with a fault of its own."""


class ThrottledError(TemporaryError, kind="throttled"):
    """A table refused for want of capacity."""


class ConflictError(TemporaryError, kind="transaction_conflict"):
    """Another transaction holds one of the items, and went on holding it through our retries."""


class GuardrailUnavailableError(TemporaryError, kind="guardrail_unavailable", is_outage=True):
    """The guardrail did not answer; unscreened text never reaches an agent."""


class GuardrailOutageError(GuardrailUnavailableError):
    """The guardrail answers nobody at present."""


class TextRefusedError(GuardrailUnavailableError, kind="text_refused", is_outage=False):
    """The guardrail does not take the text of one child."""


class BudgetUnavailableError(TemporaryError, kind="budget_unavailable", is_outage=True):
    """The monthly budgets of a user cannot be told, so nothing of theirs is released."""


class BudgetUnusableError(BudgetUnavailableError, kind="budget_unusable", is_outage=False):
    """The monthly budgets of one user cannot be told: a row is malformed, or nobody knows them."""


class RepoUnusableError(TemporaryError, kind="repo_unusable"):
    """The row of a repo in RepoTable holds a value that no task can be created with."""


class PipelineUnavailableError(TemporaryError, kind="pipeline_unavailable", is_outage=True):
    """The task exists, and its pipeline could not be invoked; a later sweep invokes it."""


class InvocationRefusedError(PipelineUnavailableError):
    """Lambda answered that it does not take the invocation: nothing was started."""


class NameRefusedError(PipelineUnavailableError):
    """The pipeline takes no execution names: it is no durable function, or its ARN no alias."""


class PermanentError(ReconcilerError):
    """Will not go away by itself."""


class TableMissingError(PermanentError, kind="table_missing", is_outage=True):
    """A table that the settings name does not exist."""


class IndexUnavailableError(PermanentError, kind="index_unavailable", is_outage=True):
    """An index does not exist, or is still being filled."""


class AccessError(PermanentError, kind="access", is_outage=True):
    """The credentials lack a permission."""


class CredentialsError(AccessError, kind="credentials"):
    """There are no credentials, they are wrong or expired, or they cannot be obtained."""


class EncryptionKeyError(AccessError, kind="encryption_key"):
    """The encryption key of a table (KMS) is disabled, gone or denied."""


class AccountLimitError(PermanentError, kind="account_limit", is_outage=True):
    """The AWS account has reached a limit, or may not use the service."""


class UnknownRefusalError(TemporaryError, kind="unknown_refusal", is_outage=True):
    """AWS failed in a way that is not known here; that is nobody's fault until somebody knows."""


class InvalidRequestError(PermanentError, kind="invalid_request"):
    """DynamoDB rejected an item for its size, or for a value in it."""


class DefectError(PermanentError, kind="unexpected"):
    """Our own code failed on an orchestration; the others go on."""


DEFECTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a defect of ours raises. Not ``Exception``: a worker's time limit must go through."""


def _all(error: type[ReconcilerError]) -> Iterator[type[ReconcilerError]]:
    for below in error.__subclasses__():
        yield below
        yield from _all(below)


ERROR_KINDS = (
    *dict.fromkeys(error.kind for error in _all(ReconcilerError) if "kind" in vars(error)),
    "broker_unavailable",
    "time_limit",
    "malformed_message",
    "other_deployment",
)
"""Every value of the label ``reconciler_errors_total{kind}``; the last ones are of the workers."""


OUTAGES = frozenset(error.kind for error in _all(ReconcilerError) if error.is_outage)
"""Kinds that concern no single orchestration. ``reconciler.observability.outages`` logs each when
it begins and when it is over, so nothing else logs them for each orchestration."""


def error_kind(error: BaseException) -> str:
    """Return the metric label of an error; a defect of ours is ``unexpected``."""
    return error.kind if isinstance(error, ReconcilerError) else "unexpected"


def as_own_error(error: Exception) -> ReconcilerError:
    """Return an error as one of ours; what nobody expected is a defect."""
    return error if isinstance(error, ReconcilerError) else DefectError(describe_error(error))


def describe_error(error: BaseException) -> str:
    """Return an error in one line for a person."""
    if isinstance(error, ReconcilerError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def concerns_one_child(error: BaseException) -> bool:
    """Whether an error is about one child, so that its siblings may fare better."""
    if isinstance(error, GuardrailUnavailableError):
        return not isinstance(error, GuardrailOutageError)
    return lasting(error) or isinstance(error, RepoUnusableError)


def lasting(error: BaseException) -> bool:
    """Return whether an error is held against its orchestration; an outage never is.

    Only two are: DynamoDB rejects an item of it (``reconciler.aws_errors`` has the codes), or our
    code fails on its rows.
    """
    return isinstance(error, (InvalidRequestError, DefectError, *DEFECTS))
