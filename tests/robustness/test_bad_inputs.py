"""Bad arguments of every public entry: one error that says what was expected, never numbers, never another's error.

A cell is an entry, one of its arguments, and a value for it that is bad while all else is good. Clear is a ValueError,
TypeError or OSError that this package or scikit-learn's validation raises and that names the argument or what was
expected, or a warning that does; raw is any other error; silent is a result without a word.
"""

from __future__ import annotations

import collections
import importlib.util

import numpy as np
import pytest

from tests.robustness import _bad_displays, _bad_inspection, _bad_methods, _bad_metrics, _bad_records
from tests.robustness._judged import judged


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    parts = [_bad_methods, _bad_metrics, _bad_inspection, _bad_records]
    if importlib.util.find_spec("matplotlib") is not None:
        parts.append(_bad_displays)
    return [cell for part in parts for cell in part.cells(folder)]


def ended(cells):
    """How often calls ended how, and the cells that were not refused clearly."""
    counts, others = collections.Counter(), []
    for cell in cells:
        verdict, said = judged(cell)
        counts[verdict] += 1
        if verdict != "clear":
            others.append(f"{verdict}: {cell}: {said}")
    return counts, others


def test_a_few_of_them(cells):
    assert len(cells) > 5000
    some = np.random.default_rng(0).choice(len(cells), 150, replace=False)
    assert ended([cells[i] for i in some])[1] == []


@pytest.mark.slow
def test_all_of_them(cells):
    counts, others = ended(cells)
    assert not others, others[:20]
    print(len(cells), dict(counts))


def test_what_the_judge_calls_raw_and_silent():
    """It would see them."""
    cell = _bad_methods.Cell

    def called(function):
        return judged(cell("entry", "rows", "bad", function))[0]

    assert called(lambda: np.zeros(3)) == "silent"
    assert called(lambda: np.zeros((2, 2)) @ np.zeros(3)) == "raw"
    assert called(lambda: [][3]) == "raw"
    assert called(lambda: float("text")) == "raw"
