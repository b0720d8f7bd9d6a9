"""``precision="bf16"``: scores within the rounding of the products, nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklearn_source import AttributionEnsemble, InfluenceFunctions, SourceAttribution, TracIn
from sklearn_source.gradients.algebra import _bfloat16
from tests._methods import GRADIENT_METHODS
from tests.attribution.test_tol import row_norms, terms_of, vectors

METHODS = {"source": SourceAttribution(n_segments=2), "influence": InfluenceFunctions(damping=0.05), "tracin": TracIn()}


@pytest.mark.parametrize("kind, method", [("mlp", "source"), ("mlp", "influence"), ("conv", "tracin")])
def test_scores_are_within_the_rounding(kind, method, run):
    r = run(kind, momentum=0.5)
    estimator = clone(METHODS[method]).fit(r.net, r.X, r.y)
    exact = estimator.transform(r.X_query)
    bound = np.zeros_like(exact, dtype=np.float64)
    for term in terms_of(estimator, r.X_query):
        term.blocks = estimator._gradients.blocks
        for block in range(len(term.values)):
            bound += np.outer(vectors(term, block).flatten(1).norm(dim=1), row_norms(estimator, term, block))
    found = estimator.set_params(precision="bf16").transform(r.X_query)
    off = np.abs(found.astype(np.float64) - exact)
    assert (off <= 0.012 * bound).all()
    assert off.max() > 1e-5 * np.abs(exact).max()  # they were rounded
    assert np.array_equal(estimator.set_params(precision=None).transform(r.X_query), exact)


def test_it_goes_together_with_top_rows_workers_a_store_and_ensembles(run, tmp_path):
    r = run("conv", momentum=0.5)
    estimator = clone(METHODS["source"]).set_params(precision="bf16").fit(r.net, r.X, r.y)
    rounded = estimator.transform(r.X_query)
    scale = 0.02 * np.abs(rounded).max()
    top = estimator.top_influences(r.X_query, k=4)
    np.testing.assert_allclose(top.scores, np.sort(rounded, axis=1)[:, :-5:-1], atol=scale)
    estimator.set_params(n_jobs=2)
    np.testing.assert_allclose(estimator.transform(r.X_query), rounded, atol=scale)
    estimator.set_params(n_jobs=None).store_gradients(tmp_path / "store", tol=None)
    np.testing.assert_allclose(estimator.transform(r.X_query), rounded, atol=scale)
    ensemble = AttributionEnsemble(SourceAttribution(n_segments=2), nets=[r.net, r.net])
    with pytest.warns(UserWarning, match="same weights"):
        ensemble.set_params(estimator__precision="bf16").fit(r.X, r.y)
    np.testing.assert_allclose(ensemble.transform(r.X_query), rounded, atol=scale)


def test_sums_over_all_rows_and_a_row_with_itself_are_not_rounded(run):
    r = run("conv", momentum=0.5)
    estimator = clone(METHODS["source"]).fit(r.net, r.X, r.y)
    exact = estimator.self_influence(), estimator.predict_reweighting(r.X_query, groups=[[0, 1]])
    estimator.set_params(precision="bf16")
    found = estimator.self_influence(), estimator.predict_reweighting(r.X_query, groups=[[0, 1]])
    assert all(np.array_equal(a, b) for a, b in zip(exact, found))


def test_where_it_is_emulated_that_is_said(run, monkeypatch):
    r = run("mlp", momentum=0.5)
    estimator = TracIn(precision="bf16").fit(r.net, r.X, r.y)
    monkeypatch.setattr(_bfloat16, "has_quick_bfloat16", lambda device: device != torch.device("cpu"))
    with pytest.warns(UserWarning, match="emulated"):
        estimator.transform(r.X_query)


def test_the_parameter_is_one_of_every_gradient_method(run):
    for method in GRADIENT_METHODS:
        assert method().get_params()["precision"] is None
        assert clone(method(precision="bf16")).precision == "bf16"
    r = run("mlp", momentum=0.5)
    for wrong in ("fp16", "float32", 16):
        with pytest.raises(ValueError, match="'precision' parameter"):
            TracIn(precision=wrong).fit(r.net, r.X, r.y)
