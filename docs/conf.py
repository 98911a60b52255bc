"""Sphinx's configuration for the site of the documents: ``make docs``."""

import re
from pathlib import Path

from pygments.lexers.shell import BashLexer
from sphinx.application import Sphinx

project = "Orchestration reconciler"
author = "its contributors"
copyright = "its contributors; Apache-2.0"  # noqa: A001 - Sphinx's name

extensions = ["myst_parser"]
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
    """Show links to directories as plain text, because they work only in the repository."""
    here = Path(__file__).parent

    def plain(link: re.Match[str]) -> str:
        return link["said"] if (here / link["path"]).is_dir() else link[0]

    source[0] = _LINK_OUT.sub(plain, source[0])


def setup(app: Sphinx) -> None:
    """Register with Sphinx."""
    app.add_lexer("cron", BashLexer)
    app.connect("source-read", _leave_directories_out)
