"""Print the matrix: ``python -m tests.recipes``."""

from __future__ import annotations

import argparse
import time

import torch

from ._finite_differences import outcome
from ._matrix import CELLS
from ._recipe import METHODS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", default="", help="only recipes with this in their names")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| recipe | method | expected | found | error | words |\n|---|---|---|---|---|---|")
    for recipe, method in CELLS:
        if args.k in recipe.name and not recipe.skip:
            start = time.perf_counter()
            try:
                found = outcome(recipe, method, METHODS[method][0](), recipe.tolerance, with_error=True)
            except Exception as error:
                import traceback; print("HARNESS", recipe.name, method, repr(error)[:300], traceback.extract_tb(error.__traceback__)[-1]); continue
            error = f"{found.error:.1%}" if found.error == found.error else ""
            mark = "" if found.matches(recipe.expect.split(" or "), recipe.says) else " **!**"
            print(f"| {recipe.name} | {method} | {recipe.expect} | {found.kind}{mark} | {error} | {found.words[:150]} | {time.perf_counter()-start:.1f}", flush=True)


if __name__ == "__main__":
    main()
