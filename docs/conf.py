"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

import importlib.metadata

project = "Nexus Core"
author = "the Nexus Core authors"
project_copyright = "the Nexus Core authors, MIT licence"
release = importlib.metadata.version("nexus-core-agent")

extensions = ["myst_parser"]
exclude_patterns = ["nexus_docs"]
nitpicky = True
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Nexus Core {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1056f2", "color-brand-content": "#1056f2"},
    "dark_css_variables": {"color-brand-primary": "#5798fb", "color-brand-content": "#5798fb"},
}
