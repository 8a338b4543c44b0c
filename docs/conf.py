"""How Sphinx builds these pages: ``make docs``."""

from __future__ import annotations

import re
from pathlib import Path

project = "catchmark"
author = "the catchmark authors"
copyright = author
version = re.search(r'__version__ = "(.+)"', (Path(__file__).parents[1] / "search/__init__.py").read_text())[1]  # type: ignore[index]
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"catchmark {version}"
exclude_patterns = ["_build"]
nitpicky = True
