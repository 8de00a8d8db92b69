"""Sphinx builds the pages: `make docs`. The pages of the environments are written first, the README is the index."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import environment_pages  # noqa: E402

project = "pixel_env"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "pixel_env"
html_copy_source = False
exclude_patterns = ["examples"]
myst_heading_anchors = 4  # links to headings are checked
nitpicky = True


def adapt_links(app: Sphinx, name: str, source: list[str]) -> None:
    """Put the README before the table of contents in index.md, and turn links out of `docs` into files of the site."""
    text = source[0]
    if name == "index":
        readme = (HERE.parent / "README.md").read_text(encoding="utf-8")
        text = re.sub(r"\]\((?!https?:|#)", "](../", readme).replace("](../docs/", "](") + f"\n{text}"
    text = text.replace("](../README.md", "](index.md")
    source[0] = re.sub(r"\]\((\.\./[^)]+\.md)\)", r"](path:\1)", text)


def setup(app: Sphinx) -> None:
    """Write the pages of the environments before Sphinx looks for pages."""
    environment_pages.write(HERE / "environments")
    app.connect("source-read", adapt_links)
