"""Sphinx's settings for the site; `./run docs` builds it (docs/site)."""

project = "giltrace"
extensions = ["myst_parser"]
exclude_patterns = ["site"]
# Links to headings, with anchors as the code forges make them, so that one link serves both.
myst_heading_anchors = 4
# A picture whose width is given is a link to itself in full size; docs/site/pages.py gives it.
myst_enable_extensions = ["attrs_inline"]
html_theme = "furo"
html_title = "giltrace"
html_copy_source = False
# Options begin with two dashes, and keep them.
smartquotes = False
html_show_sphinx = False
pygments_style = "friendly"
