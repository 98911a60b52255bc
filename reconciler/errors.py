"""Errors in two families: temporary (retried) and permanent (shown to a person).

Losing a race is not an error but an outcome (``reconciler.domain.outcomes``).
"""

from __future__ import annotations

from collections.abc import Iterator


class ReconcilerError(Exception):
    """Base of all errors that this package raises on purpose; ``str()`` is one line for people.

    ``kind``: the label of ``reconciler_errors_total{kind}`` and the log field. ``is_outage``: it
    does not concern a single orchestration.
    """

    kind = "error"
    is_outage = False

    def __init_subclass__(cls, *, kind: str | None = None, is_outage: bool | None = None) -> None:
        """Set both from the class statement; the parent's are the default."""
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
    """The orchestration exists, but this child does not."""


class TemporaryError(ReconcilerError):
    """May go away by itself. Nothing was changed, and it is retried."""


class StoreUnavailableError(TemporaryError, kind="store_unavailable", is_outage=True):
    """A table could not be reached, or answered with a fault of its own."""


class ThrottledError(TemporaryError, kind="throttled"):
    """A table throttled a request."""


class ConflictError(TemporaryError, kind="transaction_conflict"):
    """Another transaction held one of the items throughout our retries."""


class GuardrailUnavailableError(TemporaryError, kind="guardrail_unavailable", is_outage=True):
    """The guardrail did not answer; unscreened text never reaches an agent."""


class GuardrailOutageError(GuardrailUnavailableError):
    """The guardrail does not answer at all."""


class TextRefusedError(GuardrailUnavailableError, kind="text_refused", is_outage=False):
    """The guardrail does not take the text of one child."""


class BudgetUnavailableError(TemporaryError, kind="budget_unavailable", is_outage=True):
    """A user's monthly budgets cannot be read, so none of the user's children are released."""


class BudgetUnusableError(BudgetUnavailableError, kind="budget_unusable", is_outage=False):
    """One user's monthly budgets are unusable: a row is malformed, or the user is unknown."""


class RepoUnusableError(TemporaryError, kind="repo_unusable"):
    """The row of a repo in RepoTable holds an invalid value."""


class PipelineUnavailableError(TemporaryError, kind="pipeline_unavailable", is_outage=True):
    """The task exists, but its pipeline could not be invoked; a later sweep invokes it."""


class InvocationRefusedError(PipelineUnavailableError):
    """Lambda refused the invocation, so nothing was started."""


class NameRefusedError(PipelineUnavailableError):
    """The pipeline takes no execution names: it is not durable, or its ARN has no alias."""


class PermanentError(ReconcilerError):
    """Does not go away by itself."""


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
    """AWS failed in an unknown way, which does not count against an orchestration."""


class InvalidRequestError(PermanentError, kind="invalid_request"):
    """DynamoDB rejected an item for its size, or for a value in it."""


class DefectError(PermanentError, kind="unexpected"):
    """A bug of ours on one orchestration; the others go on."""


DEFECTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a bug of ours raises. Not ``Exception``, which includes a worker's time limit."""


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
"""Every value of the label ``reconciler_errors_total{kind}``; the last ones are the workers'."""


OUTAGES = frozenset(error.kind for error in _all(ReconcilerError) if error.is_outage)
"""Kinds that do not concern a single orchestration. ``reconciler.observability.outages`` logs when
one begins and ends, so they are not logged for each orchestration."""


def error_kind(error: BaseException) -> str:
    """Return the metric label of an error; a bug is ``unexpected``."""
    return error.kind if isinstance(error, ReconcilerError) else "unexpected"


def as_own_error(error: Exception) -> ReconcilerError:
    """Return an error as one of ours; an unexpected one becomes a ``DefectError``."""
    return error if isinstance(error, ReconcilerError) else DefectError(describe_error(error))


def describe_error(error: BaseException) -> str:
    """Return an error in one line for people."""
    if isinstance(error, ReconcilerError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def concerns_one_child(error: BaseException) -> bool:
    """Whether an error is about one child, so that its siblings may succeed."""
    if isinstance(error, GuardrailUnavailableError):
        return not isinstance(error, GuardrailOutageError)
    return lasting(error) or isinstance(error, RepoUnusableError)


def lasting(error: BaseException) -> bool:
    """Whether an error counts against its orchestration.

    Only two do: DynamoDB rejects an item (``reconciler.aws_errors`` has the codes), or our code
    fails on its rows. Outages never do.
    """
    return isinstance(error, (InvalidRequestError, DefectError, *DEFECTS))
