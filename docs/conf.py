"""How the documents become a site: ``make docs``."""

import re
from fnmatch import fnmatch
from pathlib import Path

from pygments.lexers.shell import BashLexer
from sphinx.application import Sphinx

project = "Orchestration reconciler"
author = "its contributors"
copyright = "its contributors; Apache-2.0"  # noqa: A001 - Sphinx's name

extensions = ["myst_parser"]
# What others of this directory write (the transcript) is listed as it is; code is no document.
exclude_patterns = ["build", "**/__pycache__"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "Orchestration reconciler"
html_static_path = []
html_show_sourcelink = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "monokai"


_LINK_OUT = re.compile(r"\[(?P<said>[^\]]+)\]\((?P<path>\.\./[^)#]+)\)")


def _leave_directories_out(_app: Sphinx, _page: str, source: list[str]) -> None:
    """A link to a directory beside the documents leads somewhere in the repository only."""
    here = Path(__file__).parent

    def plain(link: re.Match[str]) -> str:
        return link["said"] if (here / link["path"]).is_dir() else link[0]

    source[0] = _LINK_OUT.sub(plain, source[0])


def _list_what_is_there(_app: Sphinx, page: str, source: list[str]) -> None:
    """Expand the patterns of the table of contents, so that each page stands in it once.

    A page that is not there yet is no mistake, and one that nobody thought of comes last.
    """
    if page != "index":
        return
    pages = sorted(path.stem for path in Path(__file__).parent.glob("*.md"))
    lines = source[0].splitlines()
    named = [line for line in lines if line != "*"]
    rest = [p for p in pages if p != "index" and not any(fnmatch(p, line) for line in named)]
    expanded = {line: fnmatch_all(pages, line) for line in lines if line.endswith("*")}
    expanded["*"] = rest
    source[0] = "\n".join(each for line in lines for each in expanded.get(line, [line]))


def fnmatch_all(pages: list[str], pattern: str) -> list[str]:
    """Return the pages that a pattern names."""
    return [page for page in pages if fnmatch(page, pattern)]


def setup(app: Sphinx) -> None:
    """Hook in, as Sphinx has it."""
    app.add_lexer("cron", BashLexer)
    app.connect("source-read", _leave_directories_out)
    app.connect("source-read", _list_what_is_there)
