"""Makes the pictures of the docs: ``make screenshots``.

They show a night on embedded servers: events were lost, a sweep repaired what it could, and the
rest needs manual action. rich draws the terminals, so only Flower's pages need a browser; without
one, their pictures stay as they are. ``ARGS=status`` (or another name) makes only one picture.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import redis
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, RenderableType

from reconciler.cli.screens.inspect import render as inspection
from reconciler.cli.screens.status import render as overview
from reconciler.cli.status import read_status
from reconciler.clock import utc_now
from reconciler.demo.run import QUICK, play, staged
from reconciler.demo.view import Board, draw, draw_verdict
from reconciler.embedded.moto_server import moto_server
from reconciler.embedded.process import running
from reconciler.embedded.valkey import valkey_server
from reconciler.inspection.find import Found
from reconciler.inspection.look import look
from reconciler.observability.logs import configure_logging
from tests.support.browser import browser, element
from tests.support.flower import Flower, flower
from tests.support.processes import ROOT, Celery, until
from tests.support.world import Clock, World, build_world

IMAGES = ROOT / "docs" / "images"
TERMINAL = ("status", "inspect", "demo")
PAGES = (
    "flower-orchestrations",
    "flower-orchestration",
    "flower-tasks",
    "flower-release",
)
_COLUMNS = 96
_WORKER = "worker-1@backstop"

# Without rich's web fonts, so that a picture needs nothing from the network.
_SVG = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono"
)


class Now(Clock):
    """The real time, because worker processes use it too."""

    def __call__(self) -> datetime:
        """Return the current time."""
        return utc_now()


def screen() -> Console:
    """Return a terminal that records its output."""
    return Console(
        record=True,
        width=_COLUMNS,
        height=46,
        force_terminal=True,
        color_system="truecolor",
        file=io.StringIO(),
        highlight=False,
        emoji=False,
    )


Part = Callable[[Console], RenderableType]


def save(name: str, title: str, *parts: Part) -> None:
    """Draw parts, one under the other, as a terminal would show them."""
    out = screen()
    out.print(f"[bold green]$[/] {title}")
    for part in parts:
        out.print(part(out))
    out.print()  # otherwise the last line's descenders are cut off
    text = out.export_svg(title=title, code_format=_SVG, unique_id=name)
    (IMAGES / f"{name}.svg").write_text(text, encoding="utf-8")
    sys.stdout.write(f"docs/images/{name}.svg\n")


# -- the night


@contextmanager
def night(directory: Path) -> Iterator[tuple[World, Celery]]:
    """Provide tables and a broker, and set the environment of this process to use them."""
    with ExitStack() as stack:
        broker = stack.enter_context(valkey_server(directory, durable=False))
        world = build_world(
            stack.enter_context(moto_server(directory)),
            USER_CONCURRENCY_TABLE_NAME="Users",
            STRANDED_GRACE_SECONDS="60",
        )
        world.clock = Now()
        celery = Celery(world, broker, directory)
        os.environ.update(celery.environment)
        configure_logging(world.settings, level="ERROR")
        yield world, celery


@contextmanager
def worker(celery: Celery) -> Iterator[None]:
    """Run a worker with a name that does not show this machine."""
    log = celery.directory / "worker.log"
    with running(
        celery.command("worker", "-c", "2", "-n", _WORKER, "--without-mingle"),
        ready=lambda: log.exists() and b"ready." in log.read_bytes(),
        log=log,
        env=celery.environment,
        cwd=ROOT,
    ):
        yield


def sweep(celery: Celery) -> None:
    """Ask for a sweep by hand, and wait for it."""
    from workers.application import app  # noqa: PLC0415 - the environment is set now
    from workers.enqueue import submit_sweep  # noqa: PLC0415

    name = submit_sweep(app)

    def ended() -> object:
        # Ask again, like `sweep --wait`, for work that was still running the first time.
        submit_sweep(app, sweep_id=name)
        time.sleep(1)
        return (found := celery.state.sweep(name)) and found.summary

    until("the sweep", ended)


TITLES = {
    "schema": "Orders schema",
    "api": "Checkout API",
    "pay": "Payment provider",
    "mail": "Confirmation mail",
    "ui": "Checkout page",
    "e2e": "End-to-end tests",
    "docs": "Write it up",
}
GRAPH = {
    "schema": [], "api": ["schema"], "pay": ["schema"], "mail": ["schema"], "ui": ["api"],
    "e2e": ["ui", "pay"], "docs": ["e2e", "mail"],
}  # fmt: skip


def checkout(world: World) -> str:
    """Seed an orchestration that is half done and has lost events."""
    rows = {
        key: {"display_id": {"S": f"SHOP-{number}"}, "title": {"S": title}}
        for number, (key, title) in enumerate(TITLES.items(), start=41)
    }
    statuses = {"schema": "released", "pay": "blocked", "mail": "blocked"}
    meta = {"parent_issue_ref": {"S": "SHOP-40"}}
    return world.seed(
        GRAPH, statuses, tasks={"schema": "COMPLETED"}, rows=rows, meta=meta, age=1500
    )


def go_on(world: World, found: str) -> None:
    """Let its tasks go on without events."""
    by_child = {key: world.tasks(found, key)[0]["task_id"]["S"] for key in ("api", "pay", "mail")}
    world.finish(by_child["api"], age=900)
    world.finish(by_child["mail"], "FAILED", age=700)
    world.client.update_item(
        TableName=world.settings.task_table_name,
        Key={"task_id": {"S": by_child["pay"]}},
        UpdateExpression="SET #s = :running, status_created_at = :entered",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={
            ":running": {"S": "RUNNING"},
            ":entered": {"S": f"RUNNING#{world.ago(400)}"},
        },
    )


def for_a_person(world: World) -> None:
    """Seed what no sweep can repair."""
    rows: dict[str, dict[str, dict[str, str]]] = {
        key: {"display_id": {"S": f"OPS-{number}"}}
        for number, key in enumerate(("import", "a", "b", "export", "report", "print"), start=7)
    }
    rows["export"]["child_task_id"] = {"S": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    released = {"import": "released", "export": "released"}
    world.seed({"import": []}, released, tasks={"import": "RUNNING"}, rows=rows, age=2 * 86_400)
    world.seed({"a": ["b"], "b": ["a"]}, rows=rows, age=5 * 3600)
    world.seed({"export": []}, released, rows=rows, age=3 * 3600)
    done = {"report": "succeeded"}
    world.seed({"report": [], "print": ["report"]}, done, rows=rows, age=1200, user="eva")
    world.put("Users", {"user_id": {"S": "eva"}, "active_count": {"N": "10"}})


def pictures(wanted: set[str]) -> None:
    """Make all pictures except the demo's."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        world, celery = stack.enter_context(night(directory))
        found = checkout(world)
        for _ in range(2):
            world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"}, age=800)
        for_a_person(world)
        page = stack.enter_context(flower(celery)) if wanted & set(PAGES) else None
        stack.enter_context(worker(celery))
        if page is not None:
            until("Flower to see the worker", page.workers)
        # The beat asks for the first sweep; its next one comes after the pictures.
        stack.enter_context(celery.beat())
        until("the beat's sweep", lambda: celery.last(complete=True))
        go_on(world, found)
        if "inspect" in wanted:
            view = look(world.reconciler(), Found(found))
            title = "reconciler inspect SHOP-42"
            save("inspect", title, lambda out: inspection(view, out, utc_now()))
        if page is not None:
            paths = {"flower-orchestration": f"/orchestrations/{found}"}
            browse(page, paths, directory, height=1480)
        sweep(celery)
        if "status" in wanted:
            client = redis.Redis.from_url(f"{celery.broker}/0")
            status = read_status(world.settings, client, world.reconciler(), details=True)
            save("status", "reconciler status", lambda _: overview(status))
        if page is not None:
            release = next(name for name in page.tasks() if name.startswith(f"release:{found}_api"))
            paths = {
                "flower-orchestrations": "/orchestrations",
                "flower-tasks": "/tasks",
                "flower-release": f"/task/{release}",
            }
            browse(page, paths, directory)


# -- Flower


def browse(page: Flower, paths: Mapping[str, str], directory: Path, height: int = 860) -> None:
    """Take pictures of Flower's pages: name → path."""
    with browser(directory / "profile", width=1520, height=height) as chrome:
        chrome.get(page.with_login)
        for name, path in paths.items():
            chrome.get(f"{page.address}{path}")
            element(chrome, "main table td, main dd", ":" if name == "flower-tasks" else "")
            chrome.save_screenshot(str(IMAGES / f"{name}.png"))
            sys.stdout.write(f"docs/images/{name}.png\n")


# -- the demo


def demo() -> None:
    """Play the short demo; draw its board with most children stranded, and the verdict."""
    most = -1
    frame: RenderableType = ""

    def keep(board: Board) -> None:
        nonlocal most, frame
        stranded = len(board.stranded)
        if board.down_for is not None and stranded >= most:
            # Draw it now, because the board keeps changing.
            most, frame = stranded, draw(board, screen())

    with tempfile.TemporaryDirectory() as directory, staged(QUICK, Path(directory), _say) as stage:
        verdict = play(stage, keep)
    save("demo", "make demo", lambda _: frame, lambda _: draw_verdict(verdict))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    """Make the named pictures, or all."""
    wanted = set(sys.argv[1:]) or {*TERMINAL, *PAGES}
    IMAGES.mkdir(exist_ok=True)
    if "demo" in wanted:
        demo()
    if wanted - {"demo"}:
        pictures(wanted)


if __name__ == "__main__":
    main()
