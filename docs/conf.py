"""How `make docs` builds the documentation. Warnings are errors."""

project = "Obscura"
author = "The Obscura developers"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
html_theme = "furo"
html_title = "Obscura"
exclude_patterns = ["_build", "bench/*.md"]  # included in the page on performance
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}
autodoc_typehints = "description"
autodoc_class_signature = "separated"
# A code fence that is data, not a language that a highlighter knows.
suppress_warnings = ["misc.highlighting_failure"]
