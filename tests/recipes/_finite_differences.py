"""Scores of rows against finite differences of the skorch training, each row's loss weighted up and down a little.

The trainings compared run without this package in them.
"""

from __future__ import annotations

import re
import traceback
import warnings
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from pathlib import Path

import numpy as np

import sklearn_source
from sklearn_source import TrajectoryRecorder

from ._held_squares import SQUARES, HoldSquares, RecordSquares
from ._recipe import METHODS, N_ROWS
from ._row_weights import RowWeights

PACKAGE = sklearn_source.__path__[0]


def directions(n):
    """Weights of rows to go along, (n, n_rows): random ones, in which no row's error hides behind another's."""
    drawn = np.random.default_rng(1).normal(size=(n, N_ROWS))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@lru_cache(maxsize=2)
def recorded(recipe, training):
    """The net that the package sees, its measurements, and what was said while it trained."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = recipe.train(training, TrajectoryRecorder(n_checkpoints=recipe.n_checkpoints))
    return net, recipe.measure(net), _words(caught)


@lru_cache(maxsize=2)
def slopes(recipe, training, eps=None, n_directions=1):
    """Derivatives of the measurements along :func:`directions`, (n_directions, n_query)."""
    keys, eps = recipe.data()[0][:, 0], eps or recipe.eps
    holding = []
    if recipe.optimizer in SQUARES and training != "converged":
        squares = []
        recipe.train(training, RecordSquares(squares))
        holding = [squares]
    present, result = recorded(recipe, training)[1], []
    for direction in directions(n_directions):
        up, down = (
            recipe.measure(recipe.train(training, RowWeights(keys, 1.0 + step * direction), *map(HoldSquares, holding)))
            for step in (eps, -eps)
        )
        # Another training (on other batches, or changed by the recorder) would not lie halfway between the two.
        coarse = eps > 0.1  # in half precision both ends round
        if not coarse and np.abs((up + down) / 2 - present).max() > 0.1 * np.abs(up - down).max() + 1e-9:
            raise AssertionError(f"the trainings of {recipe.name} differ in more than the weights of rows")
        result.append((up - down) / (2 * eps))
    return np.stack(result)


def error_of(scores, truth):
    """Relative error of scores, (n_query, n_rows), against the derivatives."""
    return float(np.linalg.norm(directions(len(truth)) @ scores.T - truth) / np.linalg.norm(truth))


@dataclass(frozen=True)
class Outcome:
    """What came of a recipe: its kind, the error of the scores where there are any, and what was said."""

    kind: str  # "right", "warned", "refused", "crashed" or "silent wrong"
    error: float = nan
    words: str = ""

    def satisfies(self, recipe):
        """Whether it is what the recipe may come to, in the fitting words."""
        if self.kind not in recipe.expect.split(" or "):
            return False
        return self.kind == "right" or re.search(recipe.says, self.words, re.IGNORECASE) is not None


def outcome(recipe, method, measured=True):
    """Attribute, and judge. ``measured=False`` leaves out the error of scores that were warned of, for time."""
    training, estimator = METHODS[method]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            net, _, earlier = recorded(recipe, training)
            scores = recipe.scores(estimator(), net)
        except Exception as error:
            return Outcome("refused" if _is_refusal(error) else "crashed", words=f"{type(error).__name__}: {error}")
    words = "; ".join(filter(None, [earlier, _words(caught)]))
    if words and not measured:
        return Outcome("warned", words=words)
    error = error_of(scores, slopes(recipe, training))
    kind = "warned" if words else "right" if error < recipe.tolerance else "silent wrong"
    return Outcome(kind, error, words)


def _words(caught):
    """What this package said to the user, on one line; what torch and skorch have to say is their own."""
    own = [w for w in caught if issubclass(w.category, UserWarning) and "torch" not in Path(w.filename).parts]
    return "; ".join(dict.fromkeys(str(w.message) for w in own))


def _is_refusal(error):
    """Whether an error is one that this package raises for a user, not one that it ran into."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, (ValueError, TypeError, NotImplementedError)) and last.startswith(PACKAGE)
