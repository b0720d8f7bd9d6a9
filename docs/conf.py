"""Sphinx configuration. Build with ``python3 tasks.py docs``; nothing is fetched while building."""

from __future__ import annotations

from importlib.metadata import metadata

_package = metadata("sklearn-source")
project = _package["Name"]
author = "sklearn-source developers"
copyright = author
version = release = _package["Version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
# Single backticks in docstrings quote code.
default_role = "literal"

autosummary_generate = True
autodoc_typehints = "none"  # the numpydoc sections say the types
# Members have their place in the class template; numpydoc would list those inherited from scikit-learn again.
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # Which examples use a class: shown at the end of its page.
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sklearn_source",),
    "filename_pattern": "plot_",
    "download_all_examples": False,
    "show_memory": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = project
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {"**": []}
