"""The pages. They call the broker in threads, and wait without blocking Flower's loop."""

from __future__ import annotations

import ast
import asyncio
import base64
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

import redis
from celery.states import READY_STATES
from flower.views import BaseHandler
from tornado.escape import url_escape, xhtml_escape
from tornado.web import HTTPError, RequestHandler, authenticated

from reconciler.broker_refusal import refusal_of
from reconciler.cli.screens.listing import tone_of
from reconciler.cli.status import Status, status_of
from reconciler.cli.wiring import sweep_state
from reconciler.domain.codes import Code
from reconciler.domain.model import moment
from reconciler.errors import UnknownOrchestrationError
from reconciler.inspection import theme
from reconciler.observability.printable import printable
from reconciler.repair.context import count_stuck
from reconciler.repair.counts import REPAIRS
from reconciler.settings import DAY_SECONDS, load_settings
from reconciler.sweeping.listing import Query, select
from reconciler.sweeping.segments import Scope
from workers.application import app
from workers.broker import broker_client
from workers.enqueue import BrokerUnavailableError, submit
from workers.names import BY_HAND_QUEUE, DESCRIBE, EVALUATE, RELEASE
from workers.recoveries import Recoveries
from workers.replies import new_token, take

T = TypeVar("T")

ANSWER_SECONDS = 10.0
"""How long to wait for a worker."""

_POLL_SECONDS = 0.1
_MAX_CHILDREN = 300
_MAX_TASKS = 20
_MAX_SWEEPS = 5
_MAX_REPAIRS = 20
_RELEASABLE = frozenset(
    {Code.LOST_RELEASE, Code.ABANDONED_CLAIM, Code.OVER_BUDGET, Code.QUARANTINED}
)
"""Codes of children for which a release may help."""

_BROKER_AWAY = (redis.RedisError, BrokerUnavailableError)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Only Flower's and our own scripts and styles; pictures may be inline."""

_BaseHandler: Any = BaseHandler  # Flower has no types
# Few, because a call takes milliseconds unless the broker is away. Flower has its own threads.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="orchestrations")


@cache
def _broker() -> Any:  # noqa: ANN401 - redis.Redis: its stubs do not fit a cache
    return broker_client(load_settings())


def _read_status() -> Status:
    """Return the status, as far as the broker knows it."""
    settings = load_settings()
    seen = sweep_state(settings, _broker()).overview()
    recoveries = Recoveries(_broker(), settings.deployment_id).list_last(DAY_SECONDS)
    return status_of(settings, seen.now, seen=seen, recoveries=recoveries)


class PageError(Exception):
    """An error to show instead of a page: HTTP status, heading, text."""

    def __init__(self, status: int, heading: str, text: str) -> None:
        super().__init__(text)
        self.status, self.heading, self.text = status, heading, text


class Page(_BaseHandler):  # type: ignore[misc] # it is Any
    """Base of our pages: a content security policy, and plain error pages."""

    def set_default_headers(self) -> None:
        """Add our headers to Flower's."""
        super().set_default_headers()
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-store")

    def check_xsrf_cookie(self) -> None:
        """Always check the token in the form; Flower does so only with some logins."""
        super().check_xsrf_cookie()
        RequestHandler.check_xsrf_cookie(self)

    def get_template_namespace(self) -> dict[str, Any]:
        """Add the functions that our templates call."""
        namespace: dict[str, Any] = super().get_template_namespace()
        return {**namespace, "text": text, "theme": theme, "tone": tone, "when": when}

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:  # noqa: ANN401 - Tornado's
        """Log errors that are not shown on the page."""
        if not isinstance(value, (PageError, *_BROKER_AWAY)):
            super().log_exception(typ, value, tb)

    def write_error(self, status_code: int, **kwargs: Any) -> None:  # noqa: ANN401 - Tornado's
        """Show what is wrong."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, _BROKER_AWAY):
            refusal = refusal_of(error)
            said = f"{refusal.meaning}: {refusal.advice}"
            error = PageError(503, "The broker cannot be used", said)
        if isinstance(error, PageError):
            self.set_status(error.status)
            self.render("problem.html", heading=error.heading, problem=error.text)
        else:
            super().write_error(status_code, **kwargs)

    @staticmethod
    async def in_thread(call: Callable[..., T], *args: object) -> T:
        """Make a blocking call without blocking Flower."""
        return await asyncio.get_running_loop().run_in_executor(_threads, call, *args)

    @staticmethod
    async def wait_for(find: Callable[[], Awaitable[T | None]]) -> T | None:
        """Call ``find`` until it returns something, at most for ``ANSWER_SECONDS``."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            found = await find()
            if found is not None:
                return found
            await asyncio.sleep(_POLL_SECONDS)
        return None

    @property
    def read_only(self) -> bool:
        """Whether Flower must not change anything."""
        return bool(self.application.options.read_only)


class Orchestrations(Page):
    """The tab: what is stuck, the coverage, the last sweeps, and recent repairs."""

    @authenticated
    async def get(self) -> None:
        """Show the entries that match the query."""
        code = self.get_argument("code", "", escape=False)
        query = Query(
            codes=frozenset({code} if code else ()),
            needs_action=bool(self.get_argument("needs_action", "")),
            text=self.get_argument("q", "", escape=False),
            offset=max(0, self.get_argument("offset", 0, type=int)),
        )
        status = await self.in_thread(_read_status)
        self.render(
            "orchestrations.html",
            status=status,
            page=select(status.entries, query),
            query=query,
            code=code,
            stuck=count_stuck(status.seen.list_stuck()),
            groups=Counter(map(tone_of, status.entries)),
            tone_of=tone_of,
            scopes=tuple(Scope) if status.full_scan_interval_seconds else (Scope.ACTIVE,),
            sweeps=status.seen.list_ended()[: -_MAX_SWEEPS - 1 : -1],
            repairs=status.recoveries[: -_MAX_REPAIRS - 1 : -1],
            repairs_of=lambda summary: sum(summary[name] for name in REPAIRS),
            knows=self.application.events.state.tasks.__contains__,
        )


class OrchestrationPage(Page):
    """One orchestration, as a worker describes it."""

    @authenticated
    async def get(self, orchestration_id: str) -> None:
        """Ask a worker, and show its answer."""
        token = new_token()
        work = f"describe:{orchestration_id}"
        await self.in_thread(submit, app, DESCRIBE, work, orchestration_id, token)
        found = await self.wait_for(lambda: self.in_thread(take, _broker(), token))
        if found is None:
            raise PageError(
                504,
                "No worker answered",
                f"Nobody described {orchestration_id} within {ANSWER_SECONDS:.0f} s. Either no "
                f"worker runs, or none that serves the queue {BY_HAND_QUEUE}, or all are busy. "
                "`reconciler status` says which workers answer; `reconciler inspect` needs none.",
            )
        if "error" in found:
            unknown = found.get("kind") == UnknownOrchestrationError.kind
            raise PageError(404 if unknown else 502, "It could not be read", found["error"])
        view = found["view"]
        tasks = self._tasks(orchestration_id)
        sent = self.get_argument("sent", "", escape=False)
        self.render(
            "orchestration.html",
            view=view,
            picture=base64.b64encode(found["svg"].encode()).decode(),
            children=sorted(view["children"], key=_stuck_first),
            most=_MAX_CHILDREN,
            labels={child["sub_issue_id"]: child["display_id"] for child in view["children"]},
            releasable=_RELEASABLE,
            tasks=tasks[:_MAX_TASKS],
            sent=sent,
            done=next((task for task in tasks if task.uuid == sent), None),
            result=_result,
            read_only=self.read_only,
        )

    def _tasks(self, orchestration_id: str) -> list[Any]:
        """Return the Celery tasks about it that Flower knows, newest first."""
        found = [
            task
            for uuid, task in self.application.events.state.tasks.items()
            if task.name != DESCRIBE and orchestration_id in f"{uuid} {task.args}"
        ]
        return sorted(found, key=lambda task: -(task.timestamp or 0))


class _Act(Page):
    """A button: sends a task, waits a little for its end, and returns to the page."""

    async def act(self, orchestration_id: str, name: str, work: str, *args: str) -> None:
        """Send a task about an orchestration, unless Flower is read-only."""
        if self.read_only:
            raise HTTPError(403, "This Flower is read-only: it changes nothing")
        sent = await self.in_thread(submit, app, name, work, orchestration_id, *args)
        tasks = self.application.events.state.tasks

        async def ended() -> Any:  # noqa: ANN401 - Celery's
            task = tasks.get(sent)
            return task if task is not None and task.state in READY_STATES else None

        await self.wait_for(ended)
        back = self.reverse_url("orchestration", orchestration_id)
        self.redirect(f"{back}?sent={url_escape(sent)}", status=303)


class EvaluateNow(_Act):
    """The button that evaluates an orchestration."""

    @authenticated
    async def post(self, orchestration_id: str) -> None:
        """Evaluate it."""
        await self.act(orchestration_id, EVALUATE, f"evaluate:{orchestration_id}")


class ReleaseNow(_Act):
    """The button that releases a child, if it is due."""

    @authenticated
    async def post(self, orchestration_id: str, child: str) -> None:
        """Release it."""
        await self.act(orchestration_id, RELEASE, f"release:{orchestration_id}_{child}", child)


# -- functions for the templates


def text(value: object) -> str:
    """Return a value as text for a page: escaped, on one line, and printable."""
    said = value.decode() if isinstance(value, bytes) else str(value)
    return xhtml_escape(printable(said))


def tone(child: dict[str, Any]) -> theme.Tone:
    """Return the tone of a child's code, or else of its status."""
    if child["needs_action"]:
        return theme.Tone.ALARM
    if child["code"]:
        return theme.tone_of_code(child["code"])
    return theme.tone_of_status(child["status"])


def when(at: str | None) -> str:
    """Return when something will happen, for a sentence; empty if unknown."""
    known = moment(at)
    return "" if known is None else theme.until(known, datetime.now(UTC))


def _stuck_first(child: dict[str, Any]) -> tuple[bool, float]:
    age = child["age_seconds"]
    return (not child["stuck"], -(float("inf") if age is None else age) if child["stuck"] else 0.0)


def _result(task: Any) -> str:  # noqa: ANN401 - Celery's
    """Return the result of a Celery task in words; Flower knows it in Python's notation."""
    said = task.exception or task.result or ""
    try:
        value = ast.literal_eval(said)
    except (ValueError, SyntaxError):
        return str(said)
    if not isinstance(value, dict):
        return str(said)
    return ", ".join(f"{name}: {part}" for name, part in value.items() if part)
