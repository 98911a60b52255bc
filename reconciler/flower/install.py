"""Adds our pages and our tab to Flower before its application is created."""

from __future__ import annotations

from pathlib import Path

from flower import urls
from tornado.template import Loader, Template
from tornado.web import StaticFileHandler, url

from reconciler.flower.handlers import EvaluateNow, OrchestrationPage, Orchestrations, ReleaseNow

_HERE = Path(__file__).parent
_TAB = (_HERE / "templates" / "tab.html").read_text(encoding="utf-8")

# `url` instead of a tuple, so that Flower keeps names and arguments with a path prefix.
_HANDLERS = [
    url(r"/orchestrations", Orchestrations, name="orchestrations"),
    url(r"/orchestrations/([^/]+)", OrchestrationPage, name="orchestration"),
    url(r"/orchestrations/([^/]+)/evaluate", EvaluateNow, name="evaluate-now"),
    url(r"/orchestrations/([^/]+)/release/([^/]+)", ReleaseNow, name="release-now"),
    url(
        r"/orchestrations-static/(.*)",
        StaticFileHandler,
        {"path": str(_HERE / "static")},
        name="orchestrations-static",
    ),
]


class Templates(Loader):
    """Our templates, or else Flower's; adds our tab to its navigation."""

    def _create_template(self, name: str) -> Template:
        own = _HERE / "templates" / name
        path = own if own.is_file() else Path(self.root) / name
        text = path.read_text(encoding="utf-8")
        if name == "navbar.html":
            before, end, after = text.partition("</ul>")
            text = f"{before}{_TAB}{end}{after}"
        return Template(text, name=name, loader=self)


def install() -> None:
    """Add our pages to Flower's, before its "not found" page. Safe to call twice."""
    if "template_loader" in urls.settings:
        return
    urls.settings["template_loader"] = Templates(urls.settings["template_path"])
    urls.handlers[-1:-1] = _HANDLERS
