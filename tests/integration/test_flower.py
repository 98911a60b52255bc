"""Flower in a real browser, with real workers and a login, also at a path prefix."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.conftest import Servers
from tests.support.browser import browser, console_of, element
from tests.support.flower import LOGIN, Flower, flower
from tests.support.guarded_broker import PASSWORD, guarded_broker
from tests.support.one_of_each import SETTINGS, UNKNOWN_REPO
from tests.support.processes import Celery, run_reconciler, until
from tests.support.world import REPO, RealClock, build_world

pytestmark = [pytest.mark.integration, pytest.mark.browser]

PREFIX = "backstop"
DESCRIPTION = "Rotate the keys; they are lin_api_0123456789abcdef"


@dataclass
class Seen:
    """Two Flowers with the same tasks: a release, a refusal, and a release that failed."""

    flower: Flower
    prefixed: Flower
    released: str
    refused: str
    failed: str
    celery: Celery


@pytest.fixture(scope="module")
def seen(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Both Flowers, after a worker has carried out a sweep."""
    directory = tmp_path_factory.mktemp("flower")
    with ExitStack() as stack:
        world = build_world(servers.endpoint("moto"), **SETTINGS)
        world.clock = RealClock()
        repo = {"repo": {"S": REPO}, "status": {"S": "active"}}
        world.put(str(world.settings.repo_table_name), repo)
        rows = {"api": {"display_id": {"S": "ENG-42"}, "description": {"S": DESCRIPTION}}}
        due = {"schema": "succeeded"}
        released = world.seed({"schema": [], "api": ["schema"]}, due, rows=rows)
        refused = world.seed({"a": []}, rows={"a": {"repo": {"S": UNKNOWN_REPO}}})
        celery = Celery(world, stack.enter_context(guarded_broker(directory)), directory)
        plain = stack.enter_context(flower(celery))
        prefixed = stack.enter_context(flower(celery, "prefixed", prefix=PREFIX))
        stack.enter_context(celery.worker())
        for found in (plain, prefixed):
            until("Flower to see the worker", found.workers)
        _sweep(celery)
        failed = celery.call("reconciler.release_child", released, "nobody")
        for found in (plain, prefixed):
            until(
                "Flower to see how it ended",
                lambda found=found: _ended(found, f"release:{refused}_a", failed),  # type: ignore[misc]
            )
        yield Seen(plain, prefixed, released, refused, failed, celery)


def _sweep(celery: Celery) -> None:
    run_reconciler("sweep", "--wait", environment=celery.environment)


def _ended(found: Flower, *beginnings: str) -> bool:
    ended = [
        name for name, task in found.tasks().items() if task["state"] in {"SUCCESS", "FAILURE"}
    ]
    return all(any(name.startswith(start) for name in ended) for start in beginnings)


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


# -- what a person does


def search(chrome: Chrome, found: Flower, text: str) -> list[str]:
    """Open the list of tasks, search it, and return its rows."""
    chrome.get(f"{found.address}/tasks")
    element(chrome, "#tasks-table_info", "tasks")
    box = element(chrome, ".dataTables_filter input, input[type=search]")
    box.clear()  # the page remembers what was searched for before
    box.send_keys(text)

    def rows() -> list[str] | None:
        # Every key that is typed loads the list again: only the last answer counts.
        info = chrome.find_element(By.CSS_SELECTOR, "#tasks-table_info").text
        shown = [row.text for row in chrome.find_elements(By.CSS_SELECTOR, "#tasks-table tbody tr")]
        return shown if "filtered from" in info and all(text in row for row in shown) else None

    return until_steady(f"what is found by {text}", rows)


def until_steady(what: str, found: Callable[[], list[str] | None]) -> list[str]:
    """Wait for the same result twice in a row, since the page may still be changing."""
    last: list[list[str]] = []

    def look() -> list[str] | None:
        try:
            now = found()
        except StaleElementReferenceException:
            return None
        if now is None or now not in last[-1:]:
            last[:] = [now] if now is not None else []
            return None
        return now

    return until(what, look)


def details(chrome: Chrome) -> dict[str, str]:
    """Return what the page of a task shows, by name."""
    element(chrome, ".detail-list")
    names = chrome.find_elements(By.CSS_SELECTOR, ".detail-row dt")
    values = chrome.find_elements(By.CSS_SELECTOR, ".detail-row dd")
    return {name.text: value.text for name, value in zip(names, values, strict=True)}


def open_task(chrome: Chrome, found: Flower, orchestration_id: str, name: str) -> dict[str, str]:
    search(chrome, found, orchestration_id)
    link = element(chrome, f"#tasks-table a[href*='/task/{name}']")
    chrome.get(str(link.get_attribute("href")))
    return details(chrome)


@pytest.fixture(params=["plain", "prefixed"])
def at(request: pytest.FixtureRequest, seen: Seen, chrome: Chrome) -> Flower:
    """A Flower that the browser is logged in to."""
    found = seen.flower if request.param == "plain" else seen.prefixed
    chrome.get(found.with_login)
    return found


def test_nobody_gets_in_without_the_login(seen: Seen, chrome: Chrome) -> None:
    for address in (
        seen.flower.address,
        f"{seen.flower.address}/tasks",
        seen.flower.address.replace("://", "://eva:wrong@"),
    ):
        chrome.get(address)
        assert chrome.title == ""
        assert (
            chrome.find_element(By.TAG_NAME, "body").text.strip()
            in {
                "",
                "Access denied",
                "401: Unauthorized",
            }
            or "401" in chrome.find_element(By.TAG_NAME, "body").text
        )
        assert "w1@" not in chrome.page_source


@pytest.mark.parametrize(
    "path", ["/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/metrics"]
)
def test_only_the_health_check_needs_no_login(seen: Seen, path: str) -> None:
    for found in (seen.flower, seen.prefixed):
        assert found.get(path, login=None)[0] == 401
        assert found.get(path, login="eva:wrong")[0] == 401
        assert found.get(path)[0] == 200
        assert found.get("/healthcheck", login=None) == (200, "OK")


def test_flower_shows_the_workers(at: Flower, chrome: Chrome) -> None:
    chrome.get(f"{at.address}/workers")
    row = element(chrome, "#workers-table tbody tr, table tbody tr", "w1@")
    assert "Online" in row.text


def test_a_release_is_found_by_its_orchestration(at: Flower, chrome: Chrome, seen: Seen) -> None:
    rows = search(chrome, at, seen.released)
    # The evaluation, the release, and the release that failed; no other orchestration's.
    assert len(rows) == 3
    assert all(seen.released in row for row in rows)
    assert any("'outcome': 'released'" in row for row in rows)
    shown = open_task(chrome, at, seen.released, "release")
    assert shown["Name"] == "reconciler.release_child"
    assert shown["UUID"].startswith(f"release:{seen.released}_api:")
    assert shown["Status"] == "SUCCESS"
    assert shown["Arguments"] == f"('{seen.released}', 'api')"
    assert "'depends_on': ['schema']" in shown["Keyword arguments"]
    assert "'outcome': 'released'" in shown["Result"]


def test_a_refused_release_shows_its_reason(at: Flower, chrome: Chrome, seen: Seen) -> None:
    rows = search(chrome, at, seen.refused)
    assert any("'outcome': 'refused'" in row for row in rows)
    shown = open_task(chrome, at, seen.refused, "release")
    assert "'outcome': 'refused'" in shown["Result"]
    assert f"Repository {UNKNOWN_REPO} is not onboarded" in shown["Result"]


def test_a_failed_release_shows_its_exception(at: Flower, chrome: Chrome, seen: Seen) -> None:
    chrome.get(f"{at.address}/tasks")
    element(chrome, "#tasks-table_info", "tasks")
    element(chrome, ".task-state-filter[data-task-state=FAILURE]").click()
    row = element(chrome, "#tasks-table tbody tr", seen.failed)
    assert row.text.startswith("FAILURE")
    link = row.find_element(By.CSS_SELECTOR, "a[href*='/task/']")
    chrome.get(str(link.get_attribute("href")))
    shown = details(chrome)
    assert shown["Status"] == "FAILURE"
    assert "has no child nobody" in shown["Exception"]


def test_the_browser_reports_no_errors(seen: Seen, chrome: Chrome) -> None:
    """Styles, scripts and the list's own requests are also found at the prefix."""
    for found in (seen.flower, seen.prefixed):
        chrome.get(found.with_login)
        console_of(chrome)
        search(chrome, found, seen.released)
        wrong = [line for line in console_of(chrome) if line["level"] == "SEVERE"]
        assert wrong == []


def test_no_page_shows_a_secret_or_a_description(seen: Seen) -> None:
    found = seen.flower
    (worker,) = found.workers()
    pages = ["/workers", "/tasks", "/broker", f"/worker/{worker}", "/api/workers", "/api/tasks"]
    pages += [f"/task/{name}" for name in found.tasks()]
    assert len(pages) > 8
    for page in (*pages, "/api/workers?refresh=1", "/metrics"):
        status, text = found.get(page)
        assert status == 200, page
        for secret in (PASSWORD, LOGIN.partition(":")[2], DESCRIPTION):
            assert secret not in text, page


def test_logs_are_json_objects_without_secrets(seen: Seen) -> None:
    with seen.celery.beat():
        pass
    logs = [seen.flower.log, seen.prefixed.log]
    logs += [seen.celery.directory / name for name in ("w1.log", "beat.log")]
    for log in logs:
        text = log.read_text()
        assert [json.loads(line)["event"] for line in text.splitlines()]
        for secret in (PASSWORD, LOGIN.partition(":")[2], DESCRIPTION, "lin_api_0123"):
            assert secret not in text, log.name
