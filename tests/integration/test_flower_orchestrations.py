"""The tab *Orchestrations* in a real browser: find a stuck child, read why, release it once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote

import pytest
import redis
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from reconciler.embedded.valkey import valkey_server
from tests.conftest import Servers
from tests.support.browser import browser, console_of, element
from tests.support.flower import Flower, flower, token_of
from tests.support.one_of_each import BUSY_USER, CAP, SETTINGS
from tests.support.processes import Celery, run_reconciler, until
from tests.support.world import REPO, RealClock, World, build_world
from workers.names import BY_HAND_QUEUE

pytestmark = [pytest.mark.integration, pytest.mark.browser]

MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
TITLE = f"{MARKUP}\x1b[31m\u202e&amp;"
SHOWN = f"{MARKUP}\u241b[31m\N{REPLACEMENT CHARACTER}&amp;"
ODD_CHILD = '"><b>x/..%2F?&y'


@dataclass
class Stage:
    """Three Flowers on one broker; one orchestration waits for a slot, another needs action.

    The tests without ``worker`` or ``broker`` close them, and come last.
    """

    world: World
    redis: redis.Redis
    flower: Flower
    prefixed: Flower
    read_only: Flower
    waiting: str
    odd: str
    worker: ExitStack
    broker: ExitStack

    def page(self, orchestration_id: str) -> str:
        return f"/orchestrations/{orchestration_id}"


@pytest.fixture(scope="module")
def stage(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("orchestrations")
    with ExitStack() as stack:
        world = build_world(servers.endpoint("moto"), **SETTINGS)
        world.clock = RealClock()
        repo = {"repo": {"S": REPO}, "status": {"S": "active"}}
        world.put(str(world.settings.repo_table_name), repo)
        take_slots(world, CAP)
        waiting = world.seed(
            {"schema": [], "api": ["schema"], "docs": ["api"]},
            {"schema": "succeeded"},
            rows={"api": {"display_id": {"S": "ENG-42"}, "title": {"S": TITLE}}},
            user=BUSY_USER,
        )
        odd = world.seed(
            {ODD_CHILD: []},
            {ODD_CHILD: "meditating"},
            rows={ODD_CHILD: {"display_id": {"S": MARKUP}, "title": {"S": TITLE}}},
        )
        broker = stack.enter_context(ExitStack())
        url = broker.enter_context(valkey_server(directory, durable=False))
        celery = Celery(world, url, directory)
        plain = stack.enter_context(flower(celery, "plain"))
        prefixed = stack.enter_context(flower(celery, "prefixed", prefix="backstop"))
        read_only = stack.enter_context(flower(celery, "read-only", read_only=True))
        worker = stack.enter_context(ExitStack())
        worker.enter_context(celery.worker())
        for found in (plain, prefixed, read_only):
            until("Flower to see the worker", found.workers)
        run_reconciler("sweep", "--wait", environment=celery.environment)
        yield Stage(world, celery.redis, plain, prefixed, read_only, waiting, odd, worker, broker)


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(params=["plain", "prefixed"])
def at(request: pytest.FixtureRequest, stage: Stage, chrome: Chrome) -> Flower:
    """A Flower that the browser is logged in to."""
    found = stage.flower if request.param == "plain" else stage.prefixed
    chrome.get(found.with_login)
    return found


def take_slots(world: World, count: int) -> None:
    """Let tasks of the busy user take this many slots."""
    row = {"user_id": {"S": BUSY_USER}, "active_count": {"N": str(count)}}
    world.put(str(world.settings.user_concurrency_table_name), row)


def text_of(page: str) -> str:
    """Return the words of a page."""
    main = page.partition("<main")[2].partition("</main>")[0]
    return " ".join(re.sub(r"<[^>]*>", " ", f"<{main}").split())


# -- the login


def test_every_page_asks_for_the_login(stage: Stage) -> None:
    page = stage.page(stage.waiting)
    for found in (stage.flower, stage.prefixed):
        for path in ("/orchestrations", page):
            assert found.get(path, login=None)[0] == 401
            assert found.get(path, login="eva:wrong")[0] == 401
        for path in (f"{page}/evaluate", f"{page}/release/api"):
            assert found.post(path, login=None, token="a" * 32)[0] == 401


# -- what is shown


@pytest.mark.parametrize("page", ["workers", "tasks", "broker", "orchestrations"])
def test_the_tab_is_on_every_page(at: Flower, chrome: Chrome, page: str) -> None:
    chrome.get(f"{at.address}/{page}")
    tab = element(chrome, ".app-nav a", "Orchestrations")
    assert tab.get_attribute("href") == f"{at.address}/orchestrations"
    assert tab.get_attribute("aria-current") == ("page" if page == "orchestrations" else None)


def test_a_child_is_found_by_its_display_id(at: Flower, chrome: Chrome, stage: Stage) -> None:
    chrome.get(f"{at.address}/orchestrations")
    element(chrome, "#q").send_keys("eng-42", Keys.ENTER)
    until("the search", lambda: "q=eng-42" in chrome.current_url)
    (row,) = chrome.find_elements(By.CSS_SELECTOR, "#stuck-table tbody tr")
    assert "over_budget" in row.text
    assert stage.waiting in row.text
    row.find_element(By.LINK_TEXT, "ENG-42").click()
    child = element(chrome, "#children-table #api")
    assert "over_budget" in child.text
    assert "it is due, and its user has no free slot" in child.text
    assert "releases it as soon as its user has a free slot" in child.text
    picture = element(chrome, ".orch-picture img")
    assert int(str(picture.get_attribute("naturalWidth"))) > 100
    task = element(chrome, "#tasks + table a", "evaluate:")
    assert str(task.get_attribute("href")).startswith(f"{at.address}/task/evaluate")


def test_filters_narrow_the_list(stage: Stage) -> None:
    _, every = stage.flower.get("/orchestrations")
    assert stage.waiting in every
    assert stage.odd in every
    _, one = stage.flower.get("/orchestrations?code=unknown_status")
    _, action = stage.flower.get("/orchestrations?needs_action=1")
    for page in (one, action):
        rows = page.partition('id="stuck-table"')[2].partition("</table>")[0]
        assert stage.odd in rows
        assert stage.waiting not in rows
    assert "Nothing that is stuck matches." in stage.flower.get("/orchestrations?q=nowhere")[1]


def test_coverage_and_the_last_sweep_are_shown(stage: Stage) -> None:
    _, page = stage.flower.get("/orchestrations")
    assert re.search(r"Active work is covered as of .* ago\.", text_of(page))
    assert "No beat has asked for one yet." in text_of(page)
    assert "sweep:by-hand-" in page.partition('id="sweeps"')[2]


def test_markup_in_rows_is_shown_as_text(at: Flower, chrome: Chrome, stage: Stage) -> None:
    console_of(chrome)
    for path in ("/orchestrations?code=unknown_status", stage.page(stage.odd)):
        chrome.get(f"{at.address}{path}")
        assert MARKUP in element(chrome, "main").text
        for selector in ("main img[src=x]", "main script", "main td b"):
            assert chrome.find_elements(By.CSS_SELECTOR, selector) == []
        assert chrome.title not in {"1", "2"}
    assert SHOWN in element(chrome, "#children-table").text
    # The link from the list leads to the child, whatever its id contains.
    chrome.get(f"{at.address}/orchestrations?code=unknown_status")
    link = element(chrome, "#stuck-table a")
    link.click()
    row = element(chrome, "#children-table tr:target")
    assert ODD_CHILD in row.text
    assert [line for line in console_of(chrome) if line["level"] == "SEVERE"] == []


def test_no_page_runs_an_inline_script(at: Flower, chrome: Chrome, stage: Stage) -> None:
    for path in ("/orchestrations", stage.page(stage.waiting)):
        chrome.get(f"{at.address}{path}")
        element(chrome, "main table")
        chrome.execute_script(
            "let made = document.createElement('script');"
            "made.textContent = 'document.title = \"inline\"'; document.body.append(made)"
        )
        assert chrome.title != "inline"


def test_both_pages_fit_phone_and_dark_theme(at: Flower, chrome: Chrome, stage: Stage) -> None:
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    seen = set()
    try:
        for path in ("/orchestrations", stage.page(stage.waiting)):
            for theme in ("light", "dark"):
                chrome.get(f"{at.address}{path}")
                chrome.execute_script(f"localStorage.setItem('flower-theme', '{theme}')")
                chrome.refresh()
                width = "return document.documentElement.scrollWidth"
                assert chrome.execute_script(width) == 360
                card = element(chrome, ".detail-card")
                seen.add((theme, card.value_of_css_property("background-color")))
    finally:
        chrome.execute_script("localStorage.removeItem('flower-theme')")
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert len(seen) == 2


# -- the buttons


def test_a_button_needs_token_and_same_origin(stage: Stage) -> None:
    """A login that the browser sends by itself is not enough, nor is another site's form."""
    page = stage.page(stage.waiting)
    before = stage.world.everything()
    token = token_of(stage.flower.get(page)[1])
    for path in (f"{page}/evaluate", f"{page}/release/api"):
        assert stage.flower.post(path)[0] == 403
        assert stage.flower.post(path, token=token, **{"Sec-Fetch-Site": "cross-site"})[0] == 403
        assert stage.flower.post(path, token=token, Origin="https://elsewhere.example")[0] == 403
        assert stage.flower.get(path)[0] == 405
    assert stage.world.everything() == before


def test_read_only_flower_shows_and_accepts_no_button(stage: Stage) -> None:
    page = stage.page(stage.waiting)
    token = token_of(stage.flower.get(page)[1])
    status, shown = stage.read_only.get(page)
    assert status == 200
    assert "<form" not in shown
    for path in (f"{page}/evaluate", f"{page}/release/api"):
        status, said = stage.read_only.post(path, token=token)
        assert status == 403
        assert "read-only" in said


def test_evaluate_now_shows_its_result(at: Flower, chrome: Chrome, stage: Stage) -> None:
    chrome.get(f"{at.address}{stage.page(stage.waiting)}")
    element(chrome, "summary", "Evaluate now").click()
    element(chrome, "form button", "Evaluate").click()
    said = element(chrome, "#sent")
    assert "SUCCESS" in said.text
    assert "over_budget" in said.text


def test_a_confirmed_release_happens_once(stage: Stage, chrome: Chrome) -> None:
    """The keyboard is enough to confirm it."""
    take_slots(stage.world, 0)
    chrome.get(stage.prefixed.with_login)
    chrome.get(f"{stage.prefixed.address}{stage.page(stage.waiting)}")
    element(chrome, "#api summary", "Release").send_keys(Keys.ENTER)
    element(chrome, "#api form button", "Release ENG-42")
    assert stage.world.tasks(stage.waiting, "api") == []
    keyboard = chrome.switch_to.active_element
    keyboard.send_keys(Keys.TAB)
    chrome.switch_to.active_element.send_keys(Keys.ENTER)
    said = element(chrome, "#sent")
    assert "outcome: released" in said.text
    (task,) = stage.world.tasks(stage.waiting, "api")
    assert task["task_id"]["S"] in said.text
    assert stage.world.statuses(stage.waiting)["api"] == "released"
    # The page was open elsewhere too, and its button is pressed there.
    page = stage.page(stage.waiting)
    token = token_of(stage.flower.get(page)[1])
    status, shown = stage.flower.post(f"{page}/release/api", token=token)
    assert status == 200
    assert "outcome: already_released" in shown
    assert len(stage.world.tasks(stage.waiting, "api")) == 1
    # The list no longer has the child, and shows the repair.
    _, listed = stage.flower.get("/orchestrations")
    assert "over_budget" not in listed
    assert stage.waiting in listed.partition('id="repairs"')[2]
    assert "lost_release: blocked → released" in text_of(shown)


def test_an_odd_id_reaches_the_worker_unchanged(stage: Stage) -> None:
    page = stage.page(stage.odd)
    token = token_of(stage.flower.get(page)[1])
    status, shown = stage.flower.post(f"{page}/release/{quote(ODD_CHILD, safe='')}", token=token)
    assert status == 200
    assert "outcome: no_longer_due" in shown
    released = [
        task["args"] for name, task in stage.flower.tasks().items() if name.startswith("release:")
    ]
    assert repr((stage.odd, ODD_CHILD)) in released


def test_an_unknown_orchestration_is_not_found(stage: Stage) -> None:
    status, page = stage.flower.get("/orchestrations/orch_nowhere")
    assert status == 404
    assert "no orchestration orch_nowhere exists" in page


# -- without a worker, and without a broker: these come last


def test_a_missing_worker_blocks_no_other_page(stage: Stage) -> None:
    """The page that needs one says that none answered."""
    stage.worker.close()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(stage.flower.get, stage.page(stage.waiting))
        until("the question", lambda: stage.redis.llen(BY_HAND_QUEUE))
        assert stage.flower.get("/orchestrations")[0] == 200
        assert not asked.done()
        status, page = asked.result()
    assert status == 504
    assert "No worker answered" in page
    assert f"serves the queue {BY_HAND_QUEUE}" in text_of(page)


def test_every_page_reports_a_missing_broker(stage: Stage) -> None:
    stage.worker.close()
    page = stage.page(stage.waiting)
    stage.broker.close()
    for path in ("/orchestrations", page):
        status, shown = stage.flower.get(path)
        assert status == 503
        assert "The broker cannot be used" in shown
        assert "see that it runs" in shown
        assert "Traceback" not in shown
    assert "Traceback" not in stage.flower.log.read_text()
