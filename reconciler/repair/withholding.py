"""Withholding: reasons not to repair an orchestration now."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.domain.model import Orchestration
from reconciler.domain.outcomes import Outcome
from reconciler.settings import Settings
from reconciler.stores.control import ControlStore


@dataclass(frozen=True, slots=True)
class Withholding:
    """Knows what operators have ruled out, by settings or with a pause."""

    settings: Settings
    control: ControlStore

    def __call__(self, orchestration: Orchestration) -> str | None:
        """Return why ``orchestration`` must not be changed, or None."""
        by_settings = self.by_settings(orchestration)
        if by_settings is not None:
            return by_settings
        pause = self.control.paused()
        if pause is not None:
            return f"paused since {pause.since} by {pause.by}: {pause.reason}"
        return None

    def by_settings(self, orchestration: Orchestration) -> str | None:
        """Return which setting forbids changing ``orchestration``, if any."""
        settings, repo, user = self.settings, orchestration.repo, orchestration.user_id
        if settings.repair_mode == "report":
            return "REPAIR_MODE is report"
        if settings.repair_only_repos and repo not in settings.repair_only_repos:
            return f"repo {repo} is not among REPAIR_ONLY_REPOS"
        if settings.repair_only_users and user not in settings.repair_only_users:
            return f"user {user} is not among REPAIR_ONLY_USERS"
        return None

    def outcome(self) -> Outcome:
        """Return the outcome of a withheld action: by a pause, or by the settings."""
        return Outcome.REPORT_ONLY if self.control.paused() is None else Outcome.PAUSED
