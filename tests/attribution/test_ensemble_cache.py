"""Ensembles whose members are kept: a fit that was killed, and searches over the number of members."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetRegressor

from sklearn_source import AttributionEnsemble, GradientSimilarity, LoRAEnsemble, SourceAttribution
from sklearn_source.model_selection import FullTrainingSet, make_lds_scorer
from sklearn_source.modules import MLP
from sklearn_source.retraining import _fit_engines, retrain_on_subsets
from sklearn_source.utils._compat import FrozenEstimator
from tests.attribution._ensemble_nets import trained as trained_of_a_kind

ROOT = Path(__file__).resolve().parents[2]


def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(24, 3)).astype(np.float32)
    return X, np.sin(X[:, :1]), rng.normal(size=(10, 3)).astype(np.float32)


def untrained(**options):
    defaults = {"module__n_features": 3, "module__hidden": (5,), "lr": 0.05, "max_epochs": 3, "batch_size": 8}
    return NeuralNetRegressor(MLP, train_split=None, verbose=0, **{**defaults, **options})


def trained_net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return untrained().fit(*rows()[:2])


@pytest.fixture
def trained(monkeypatch):
    """Seeds of the members trained, by either engine."""
    seeds = []
    for engine in (_fit_engines.LoopEngine, _fit_engines.AtOnceEngine):

        def noting(self, units, original=engine.__call__):
            networks = original(self, units)
            seeds.extend(unit.seed for unit in units)
            return networks

        monkeypatch.setattr(engine, "__call__", noting)
    return seeds


@pytest.mark.parametrize("engine", ["vectorized", "joblib"])
def test_an_interrupted_fit_goes_on(engine, tmp_path, trained, monkeypatch):
    X, y, X_query = rows()
    options = {"n_members": 5, "random_state": 0}
    if engine == "joblib":
        monkeypatch.setattr(_fit_engines, "why_not_faster", lambda network: "as asked for")
    monkeypatch.setattr(_fit_engines, "together", lambda network: 2)
    method = SourceAttribution(untrained())
    expected = AttributionEnsemble(method, **options).fit(X, y).transform(X_query)
    seeds, written = list(trained), []
    assert len(seeds) == 5
    trained.clear()
    original = _fit_engines.AtOnceEngine.__call__ if engine == "vectorized" else _fit_engines.LoopEngine.__call__

    def interrupted(self, units):
        if len(written) >= 2:
            raise KeyboardInterrupt
        written.extend(units)
        return original(self, units)

    kind = _fit_engines.AtOnceEngine if engine == "vectorized" else _fit_engines.LoopEngine
    with monkeypatch.context() as patch:
        patch.setattr(kind, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            AttributionEnsemble(method, cache=tmp_path, **options).fit(X, y)
    assert trained == seeds[:2]
    again = AttributionEnsemble(method, cache=tmp_path, **options).fit(X, y)
    assert trained == seeds
    np.testing.assert_array_equal(again.transform(X_query), expected)
    np.testing.assert_array_equal(
        AttributionEnsemble(method, cache=tmp_path, **options).fit(X, y).transform(X_query), expected
    )
    assert trained == seeds


def test_a_killed_fit_goes_on(tmp_path, trained):
    script = f"""
    import os, signal, sys, types
    sys.path.insert(0, {str(ROOT)!r})
    sys.modules["tests"] = types.ModuleType("tests")  # some packages install one of that name
    sys.modules["tests"].__path__ = [{str(ROOT / "tests")!r}]
    from sklearn_source.retraining import _fit_engines
    from tests.attribution import test_ensemble_cache as t
    original, n = _fit_engines.LoopEngine.__call__, []

    def killed(self, units):
        n.append(1)
        if len(n) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, units)

    _fit_engines.LoopEngine.__call__ = killed
    _fit_engines.why_not_faster = lambda network: "as asked for"
    X, y, _ = t.rows()
    method, cache = t.SourceAttribution(t.untrained()), {str(tmp_path)!r}
    t.AttributionEnsemble(method, n_members=4, random_state=0, cache=cache).fit(X, y)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    X, y, X_query = rows()
    options = {"n_members": 4, "random_state": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fit_engines, "why_not_faster", lambda network: "as asked for")
        again = AttributionEnsemble(SourceAttribution(untrained()), cache=tmp_path, **options).fit(X, y)
        assert len(trained) == 2
        whole = AttributionEnsemble(SourceAttribution(untrained()), **options).fit(X, y)
    np.testing.assert_array_equal(again.transform(X_query), whole.transform(X_query))


def test_another_seed_net_or_method_is_another_member(tmp_path, trained):
    X, y, _ = rows()
    options = {"n_members": 2, "cache": tmp_path}
    AttributionEnsemble(SourceAttribution(untrained()), random_state=0, **options).fit(X, y)
    AttributionEnsemble(SourceAttribution(untrained(), n_segments=2), random_state=0, **options).fit(X, y)
    assert len(trained) == 2  # the method is fitted anew, the networks are the same
    AttributionEnsemble(SourceAttribution(untrained()), random_state=1, **options).fit(X, y)
    AttributionEnsemble(SourceAttribution(untrained(lr=0.06)), random_state=0, **options).fit(X, y)
    AttributionEnsemble(GradientSimilarity(untrained()), random_state=0, **options).fit(X, y)  # without a recorder
    assert len(trained) == 8
    with pytest.raises(ValueError, match="expected random_state as an integer, which cache= needs, got None"):
        AttributionEnsemble(SourceAttribution(untrained()), **options).fit(X, y)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_search_over_the_number_of_members_trains_each_once(frozen, tmp_path, trained):
    X, y, X_query = rows()
    truth = retrain_on_subsets(untrained(), X, y, X_query, n_subsets=8, n_repeats=2, random_state=0)
    net = FrozenEstimator(trained_net()) if frozen else untrained()
    ensemble = AttributionEnsemble(GradientSimilarity(net), random_state=0, cache=tmp_path)
    search = GridSearchCV(
        ensemble, {"n_members": [3, 10, 5]}, scoring=make_lds_scorer(truth, X_query), cv=FullTrainingSet(2),
        error_score="raise",
    ).fit(X, y)  # fmt: skip
    assert len(trained) == len(set(trained)) == (9 if frozen else 10)
    assert search.cv_results_["mean_test_score"].shape == (3,)
    few, more = (AttributionEnsemble(GradientSimilarity(net), n_members=n, random_state=0).fit(X, y) for n in (3, 5))
    for one, two, kept in zip(few.members_, more.members_, search.best_estimator_.members_):
        expected = one.transform(X_query)
        np.testing.assert_allclose(two.transform(X_query), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(kept.transform(X_query), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_trained_adapters_are_kept(kind, tmp_path, monkeypatch):
    net, X, y = trained_of_a_kind(regression=kind == "regression")
    original, fits = type(net).partial_fit, []

    def counting(self, *args, **options):
        fits.append(1)
        if len(fits) == 3:
            raise RuntimeError("killed")
        return original(self, *args, **options)

    monkeypatch.setattr(type(net), "partial_fit", counting)
    options = {"n_steps": 7, "rank": 2, "random_state": 0}
    method = SourceAttribution(n_segments=2)
    with pytest.raises(RuntimeError, match="killed"):
        LoRAEnsemble(method, 3, cache=tmp_path, **options).fit(net, X, y)
    fits.extend([1])
    again = LoRAEnsemble(method, 3, cache=tmp_path, **options).fit(net, X, y)
    assert len(fits) == 4 + 1
    whole = LoRAEnsemble(method, 3, **options).fit(net, X, y)
    assert len(fits) == 5 + 3
    np.testing.assert_array_equal(again.transform(X[:4]), whole.transform(X[:4]))
    LoRAEnsemble(method, 2, cache=tmp_path, **options).fit(net, X, y)
    assert len(fits) == 8
    other, _, _ = trained_of_a_kind(regression=kind == "regression", batch_size=9)
    for changed, given in [({"n_steps": 8}, net), ({"rank": 1}, net), ({"lr": 0.5}, net), ({}, other)]:
        before = len(fits)
        LoRAEnsemble(method, 1, cache=tmp_path, **{**options, **changed}).fit(given, X, y)
        assert len(fits) == before + 1
    with pytest.raises(ValueError, match="expected random_state as an integer"):
        LoRAEnsemble(method, 2, cache=tmp_path).fit(net, X, y)
