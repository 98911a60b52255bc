"""Our pages and our tab, put into Flower before its application is made."""

from __future__ import annotations

from pathlib import Path

from flower import urls
from tornado.template import Loader, Template
from tornado.web import StaticFileHandler, url

from reconciler.flower.handlers import EvaluateNow, OrchestrationPage, Orchestrations, ReleaseNow

_HERE = Path(__file__).parent
_TAB = (_HERE / "templates" / "tab.html").read_text(encoding="utf-8")

# `url`, and not a plain tuple, so that Flower keeps names and arguments behind a path prefix.
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
    """Our templates, else Flower's; its navigation gets our tab after its own."""

    def _create_template(self, name: str) -> Template:
        own = _HERE / "templates" / name
        path = own if own.is_file() else Path(self.root) / name
        text = path.read_text(encoding="utf-8")
        if name == "navbar.html":
            before, end, after = text.partition("</ul>")
            text = f"{before}{_TAB}{end}{after}"
        return Template(text, name=name, loader=self)


def install() -> None:
    """Add the pages to Flower's, before the one that says "not found"; once, if called twice."""
    if "template_loader" in urls.settings:
        return
    urls.settings["template_loader"] = Templates(urls.settings["template_path"])
    urls.handlers[-1:-1] = _HANDLERS
