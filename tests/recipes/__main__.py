"""Print the matrix as a table: ``python -m tests.recipes``, with a part of a name for some recipes alone."""

from __future__ import annotations

import sys

import torch

from ._finite_differences import outcome
from ._matrix import CELLS

WIDTH = 100


def table(part=""):
    """Lines of a Markdown table: recipe, method, expected, what came of it, relative error, words.

    A cell that did not come out as expected is marked by ``!``.
    """
    yield "| recipe | method | expected | found | error | words |"
    yield "| --- | --- | --- | --- | --- | --- |"
    kinds = []
    for recipe, method in CELLS:
        if part not in recipe.name:
            continue
        if recipe.skip:
            yield f"| {recipe.name} | {method} | {recipe.expect} | skipped | | {recipe.skip} |"
            continue
        found = outcome(recipe, method)
        error = f"{found.error:.1%}" if found.error < 100 else f"{found.error:.0e}" if found.error >= 100 else ""
        words = " ".join(found.words.split()).replace("|", "/")
        words = words if len(words) <= WIDTH else words[:WIDTH] + "..."
        mark = "" if found.satisfies(recipe) else " !"
        kinds.append(found.kind)
        yield f"| {recipe.name} | {method} | {recipe.expect} | {found.kind}{mark} | {error} | {words} |"
    yield ""
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    yield f"{len(kinds)} cells of {len({recipe.name for recipe, _ in CELLS if part in recipe.name})} recipes: {counts}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in table(*sys.argv[1:]):
        print(line, flush=True)
