"""The honest score of what a search chose."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from ..utils._warnings import warn
from ._splitter import FullTrainingSet


def held_out_score(search: Any) -> Bunch:
    """What a search would have reported had it seen only queries that did not choose.

    For each fold in turn, the setting that is best on the mean of the other folds is scored on that fold. Because each
    fold fits on the same rows, nothing has to be fitted for it: this is nested cross-validation over the queries.

    Read more in the :ref:`User Guide <model_selection>`.

    Parameters
    ----------
    search : GridSearchCV or RandomizedSearchCV
        Fitted with ``cv=FullTrainingSet(n)``, n at least 2; of several metrics the one that ``refit`` names.

    Returns
    -------
    result : Bunch
        score : float
            Mean over folds.
        per_fold : ndarray of shape (n_splits,)
            On each fold, of the setting that the others chose.
        chosen : list of dict
            The setting chosen for each fold. Where they differ, the queries do not tell the settings apart.
        best_score : float
            The search's own, of the best setting on the queries that chose it: never below `score`.

    Raises
    ------
    ValueError
        If the search has one fold, or dropped settings on the way, as halving does.
    """
    if isinstance(search, type) or not isinstance(search, BaseEstimator):
        raise TypeError(f"expected a fitted search, as GridSearchCV is, got {search!r}")
    check_is_fitted(search, "cv_results_")
    results = search.cv_results_
    if "iter" in results:
        raise ValueError(
            "expected a search that scores every setting on every fold, got a halving one, which drops settings by the "
            "scores of all folds: hold queries back by make_lds_scorer(..., queries=)"
        )
    name = search.refit if getattr(search, "multimetric_", False) else "score"
    if not isinstance(search.cv, FullTrainingSet):
        raise ValueError(f"expected a search with cv=FullTrainingSet(), got cv={search.cv!r}: search again with that")
    if search.n_splits_ < 2 or f"split0_test_{name}" not in results:
        raise ValueError(
            "expected a search with two folds or more, and refit= as the name of one of several metrics, got "
            f"{search.n_splits_} folds and refit={search.refit!r}: give it FullTrainingSet(n) and such a refit"
        )
    scores = np.array([results[f"split{f}_test_{name}"] for f in range(search.n_splits_)], dtype=float)
    usable = np.flatnonzero(np.isfinite(scores).all(axis=0))
    if not len(usable):
        raise ValueError(
            f"expected a setting with a score on every fold, got none among {scores.shape[1]}: search with "
            'error_score="raise" to see why'
        )
    if len(usable) < scores.shape[1]:
        warn(f"{scores.shape[1] - len(usable)} settings without a score are left out")
    others = scores.sum(axis=0) - scores
    best = usable[others[:, usable].argmax(axis=1)]
    per_fold = scores[np.arange(len(scores)), best]
    return Bunch(
        score=float(per_fold.mean()),
        per_fold=per_fold,
        chosen=[results["params"][i] for i in best],
        best_score=float(scores[:, usable].mean(axis=0).max()),
    )
