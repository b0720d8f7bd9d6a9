"""What the package imports is what it declares: a missing dependency shows only where nothing else has installed it."""

from __future__ import annotations

import ast
import re
import sys

from tests.test_layering import PACKAGE, ROOT

# Name on import -> name of the distribution, where they differ.
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
# Imported inside functions, where it is said how to have them, or only by who has them.
OPTIONAL = {"distributed", "jinja2", "matplotlib", "pandas", "pytest", "ray"}


def declared():
    # By hand: Python 3.10 reads no toml, and what is installed may be another checkout.
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[\n(.*?)^\]", text, flags=re.MULTILINE | re.DOTALL).group(1)
    return set(re.findall(r'^    "([\w-]+)', block, flags=re.MULTILINE))


def imported(nodes):
    """Top-level names of what some nodes of a syntax tree import from outside the package and the standard library."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return {DISTRIBUTIONS.get(name, name) for name in names - sys.stdlib_module_names - {"sklearn_source"}}


def test_imports_are_declared_and_declared_ones_imported():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    anywhere = set().union(*(imported(ast.walk(tree)) for tree in trees))
    assert anywhere - OPTIONAL == declared()


def test_optional_ones_are_imported_inside_functions():
    for path in PACKAGE.rglob("*.py"):
        top = imported(ast.parse(path.read_text(encoding="utf-8")).body)
        assert not top & OPTIONAL, f"{path} imports {top & OPTIONAL} at its top"
