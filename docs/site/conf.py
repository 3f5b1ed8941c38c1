"""Settings of Sphinx for the documentation site; `make site` writes the pages beside a copy of this file."""

from pathlib import Path

project = "dica"
author = copyright = "the dica maintainers"
extensions = ["myst_parser", "sphinx.ext.napoleon", "autoapi.extension"]
html_theme = "furo"
html_title = "dica"
html_copy_source = False
html_show_sphinx = False
default_role = "literal"  # docstrings write code in single backticks
myst_heading_anchors = 3
# The package is read, not imported: no torch here. What others may call is shown, not how the archive is built.
PACKAGE = Path(__file__).parent / "dica"
autoapi_dirs = [str(PACKAGE)]
SHOWN = (
    "losses",
    "scores",
    "__init__.py",
    "methods/__init__.py",
    "methods/base.py",
    "own/__init__.py",
    "own/estimator",
)
autoapi_ignore = [
    str(path) for path in PACKAGE.rglob("*.py") if not path.relative_to(PACKAGE).as_posix().startswith(SHOWN)
]
autoapi_root = "api"
autoapi_add_toctree_entry = False
autoapi_keep_files = False
autoapi_options = ["members", "show-module-summary"]
autoapi_python_class_content = "class"
napoleon_google_docstring = False
napoleon_use_rtype = False
suppress_warnings = ["autoapi.python_import_resolution", "myst.xref_missing"]
exclude_patterns = ["dica"]
