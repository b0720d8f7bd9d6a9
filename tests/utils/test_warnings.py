"""Warnings point at the line of the user's that called, through whatever it called."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.dataset import ValidSplit
from torch import nn

import sklearn_source
from sklearn_source import EmpiricalInfluence, TracIn, TrajectoryRecorder
from sklearn_source.model_selection import FullTrainingSet, held_out_score, make_lds_scorer
from sklearn_source.retraining import retrain_on_subsets
from tests._nets import make_net

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3)).astype(np.float32)
Y = RNG.normal(size=(20, 1)).astype(np.float32)


def truth(**options):
    masks = np.eye(20, dtype=bool)
    masks[:, :2] = True
    outputs = RNG.normal(size=(20, 1, 4))
    return SimpleNamespace(masks=masks, outputs=outputs, row_hashes=None, measurement="prediction", **options)


def net(**options):
    return make_net(train_split=ValidSplit(5), callbacks=[TrajectoryRecorder()], **options)


def fitted():
    return net().fit(X, Y)


def hooked():
    trained = make_net().fit(X, Y)
    trained.module_.register_forward_hook(lambda *_: None)
    return trained


def piecewise_linear():
    return make_net(criterion=nn.L1Loss).fit(X, Y)


def fit_a_net():
    trained = fitted()
    return lambda: TracIn().fit(trained, X, Y), "held out"


def fit_with_a_net_of_its_own():
    return lambda: TracIn(net()).fit(X, Y), "held out"


def fit_a_pipeline():
    pipeline = make_pipeline(FunctionTransformer(), TracIn(FrozenEstimator(fitted())))
    return lambda: pipeline.fit(X, Y), "held out"


def fit_and_transform_a_pipeline():
    pipeline = make_pipeline(FunctionTransformer(), TracIn(FrozenEstimator(fitted())))
    return lambda: pipeline.fit_transform(X, Y), "held out"


def fit_a_search():
    search = GridSearchCV(
        TracIn(FrozenEstimator(fitted())), {"batch_size": [3]}, cv=FullTrainingSet(1), scoring=lambda *_: 0.0
    )
    return lambda: search.fit(X, Y), "held out"


def fit_a_net_with_hooks():
    trained = hooked()
    return lambda: TracIn().fit(trained, X, Y), "forward hooks"


def fit_by_a_subclass():
    class Mine(TracIn):
        pass

    trained = fitted()
    return lambda: Mine().fit(trained, X, Y), "held out"


def fit_empirical_influence():
    return lambda: EmpiricalInfluence(truth(X_query=X[:4], y_query=None)).fit(X, Y), "in all subsets or in none"


def retrain_a_net_that_splits():
    untrained = net(module__n_features=3)
    return (
        lambda: retrain_on_subsets(untrained, X, Y, X[:2], n_subsets=2, n_repeats=1, engine="joblib"),
        "train_split takes rows away",
    )


def retrain_a_net_that_diverges():
    untrained = make_net(recorded=False, lr=1e9)
    return lambda: retrain_on_subsets(untrained, X, Y, X[:2], n_subsets=2, n_repeats=1), "training diverged"


def score_rows_that_the_truth_does_not_know():
    known = truth(X_query=X[:4], y_query=None)
    known.row_hashes = np.arange(20, dtype=np.uint64)
    method, scorer = TracIn().fit(make_net().fit(X, Y), X, Y), make_lds_scorer(known)
    return lambda: scorer(method, X), "taken on trust"


def hold_scores_out():
    search = GridSearchCV(
        TracIn(FrozenEstimator(make_net().fit(X, Y))), {"batch_size": [3, 4]}, cv=FullTrainingSet(2),
        scoring=lambda method, *_: np.nan if method.batch_size == 4 else 1.0, refit=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X, Y)
    return lambda: held_out_score(search), "1 settings without a score"


ENTRIES = [
    fit_a_net, fit_with_a_net_of_its_own, fit_a_pipeline, fit_and_transform_a_pipeline, fit_a_search,
    fit_a_net_with_hooks, fit_by_a_subclass, fit_empirical_influence, retrain_a_net_that_splits,
    retrain_a_net_that_diverges, score_rows_that_the_truth_does_not_know, hold_scores_out,
]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
def test_a_warning_names_the_line_of_the_caller(entry):
    call, message = entry()
    lines, first = inspect.getsourcelines(entry)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        call()
    ours = [entry for entry in record if message in str(entry.message)]
    assert ours
    assert {warning.filename for warning in ours} == {__file__}
    assert all(first <= warning.lineno < first + len(lines) for warning in ours)


def test_the_package_warns_by_this_function_alone():
    package = Path(sklearn_source.__file__).parent
    others = [path.name for path in package.rglob("*.py") if "warnings.warn" in path.read_text()]
    assert others == ["_warnings.py"]
