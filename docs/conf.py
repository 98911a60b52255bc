"""How the documents become a site: ``make docs``."""

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


def _drop_patterns_without_pages(_app: Sphinx, page: str, source: list[str]) -> None:
    """A page that is not there yet is no mistake in the table of contents."""
    if page == "index":
        here = Path(__file__).parent
        kept = [
            line
            for line in source[0].splitlines()
            if not line.endswith("*") or any(here.glob(f"{line}.md"))
        ]
        source[0] = "\n".join(kept)


def setup(app: Sphinx) -> None:
    """Hook in, as Sphinx has it."""
    app.add_lexer("cron", BashLexer)
    app.connect("source-read", _drop_patterns_without_pages)
