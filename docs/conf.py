"""Sphinx's settings; `make docs` builds the site, any warning stops it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import detmetrics

HERE = Path(__file__).resolve().parent

project = "detmetrics"
author = copyright = "The detmetrics authors"
version = release = detmetrics.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_made/README.md"]
nitpicky = True
# the types of parameters are prose ("array_like (N, 3)"); only names of our own must be found
nitpick_ignore_regex = [("py:class", r"(?!detmetrics).*")]

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # the docstrings give types, with shapes and units
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"detmetrics {version}"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
html_static_path = ["static"]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp, .go"
pygments_style, pygments_dark_style = "friendly", "github-dark"


def setup(app: Any) -> None:
    """Connect what is made at each build."""
    app.connect("builder-inited", _write_commands)
    app.connect("autodoc-skip-member", _skip)


def _write_commands(app: Any) -> None:
    """Let typer describe the command line; nothing of it is written by hand."""
    command = [sys.executable, "-m", "typer", "detmetrics.cli", "utils", "docs", "--name", "detmetrics"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    page = HERE / "_made" / "commands.md"
    page.parent.mkdir(exist_ok=True)
    text = told.replace("# `detmetrics`\n", "# Commands\n", 1)
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text, count=1)  # cut short there, in full below
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def _skip(app: Any, what: str, name: str, member: object, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of tuples, which the docstring of the class describes."""
    return True if str(getattr(member, "__doc__", "")).startswith("Alias for field number") else None
