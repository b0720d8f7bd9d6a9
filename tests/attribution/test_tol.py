"""``tol``: every query's vector within it in every layer, and scores within what follows, on networks of every form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklearn_source import (
    AttributionEnsemble,
    GradientSimilarity,
    InfluenceFunctions,
    SnapshotInfluence,
    SourceAttribution,
    TracIn,
)
from sklearn_source.gradients.algebra import Factored, LowRank, _dyads, _low_rank, _meeting, weighted_sum
from tests._methods import GRADIENT_METHODS, apart
from tests.attribution._layers import LAYERS
from tests.attribution._runs import N_QUERIES, N_ROWS, relative
from tests.attribution.test_adaptive_reference import adaptive_run, metric_segment
from tests.reference._metric import metric_operators, walk

KINDS = ("mlp", "conv", "embedding", "encoder")
METHODS = {
    "source": SourceAttribution(n_segments=2, curvature=apart()),
    "coupled": SourceAttribution(n_segments=2),
    "influence": InfluenceFunctions(damping=0.05),
    "snapshots": SnapshotInfluence(n_snapshots=2),
    "tracin": TracIn(),
    "cosine": GradientSimilarity(),
}
CASES = [(kind, "source") for kind in KINDS] + [("conv", name) for name in METHODS if name != "source"]
assert set(KINDS) - set(LAYERS) == {"mlp", "conv"}


@pytest.fixture
def everywhere(monkeypatch):
    """Outer products in every layer, however small, found by sketches of two columns."""
    monkeypatch.setattr(_meeting, "sketching_cost", lambda shape, width: -1e30)
    monkeypatch.setattr(_dyads, "BLOCK", 2)
    monkeypatch.setattr(_dyads, "_WHOLE", 2)


@pytest.fixture(scope="module")
def adamw():
    made = {}
    return lambda kind: made[kind] if kind in made else made.setdefault(kind, adaptive_run(kind, "float64", "AdamW"))


def terms_of(estimator, X):
    (_, terms), *more = estimator._query_batches(X, None)[1]
    assert not more
    return terms


def vectors(term, block):
    """(n_query, groups, out, in) in parameters' coordinates."""
    values, shape = term.values[block], term_shape(term, block)
    if isinstance(values, LowRank | Factored):
        return values.matrix()
    values = values.unflatten(1, shape)
    basis = None if term.bases is None else term.bases[block]
    return values if basis is None else basis.inverse().encode(values)


def term_shape(term, block):
    return term.blocks[block].shape


def row_norms(estimator, term, block):
    """(n_train,) of what a term meets in a block, with the rows that it credits."""
    index = np.arange(N_ROWS)
    x, y = estimator._rows.batch(index)
    gradients = [estimator._gradients.of_loss(x, y, state)[block] for state in term.checkpoints]
    norms = weighted_sum(gradients, [float(w) for w in term.weights]).matrix().flatten(1).norm(dim=1)
    if term.cosine:
        parts = [g.matrix().flatten(1) for g in estimator._gradients.of_loss(x, y, term.checkpoints[0])]
        norms = norms / torch.cat(parts, dim=1).norm(dim=1)
    return norms


def held_to(estimator, run, tol):
    """The promise, with the factors that the estimator makes; how many blocks have them."""
    exact = terms_of(estimator, run.X_query)
    scores = estimator.transform(run.X_query)
    approximate = clone(estimator).set_params(tol=tol).fit(run.net, run.X, run.y)
    narrowed, bound = 0, np.zeros_like(scores, dtype=np.float64)
    for ours, theirs in zip(terms_of(approximate, run.X_query), exact, strict=True):
        ours.blocks = theirs.blocks = estimator._gradients.blocks
        for block in range(len(theirs.blocks)):
            v = vectors(theirs, block)
            sizes = v.flatten(1).norm(dim=1)
            assert ((vectors(ours, block) - v).flatten(1).norm(dim=1) <= tol * sizes + 1e-12 * sizes.max()).all()
            narrowed += isinstance(ours.values[block], LowRank)
            bound += tol * np.outer(sizes, row_norms(estimator, theirs, block))
    found = approximate.transform(run.X_query)
    off = np.abs(found.astype(np.float64) - scores)
    assert (off <= bound + 1e-6 * np.abs(scores).max()).all()
    return narrowed, off.max() / np.abs(scores).max()


@pytest.mark.parametrize("kind, method", [*CASES, ("embedding", "tracin"), ("encoder", "influence")])
def test_vectors_and_scores_are_within_the_tolerance(kind, method, run, everywhere):
    r = run(kind, momentum=0.5)
    estimator = clone(METHODS[method]).fit(r.net, r.X, r.y)
    narrowed, off = held_to(estimator, r, 0.2)
    assert narrowed > 0
    if method not in ("tracin", "cosine"):
        assert off > 1e-4  # something was left out


@pytest.mark.parametrize("kind, method", [("mlp", "source"), ("encoder", "influence"), ("embedding", "tracin")])
def test_within_the_tolerance_in_the_metric_of_adamw(kind, method, adamw, everywhere):
    r = adamw(kind)
    damping = {"damping": "trajectory"} if method == "influence" else {}
    narrowed, _ = held_to(clone(METHODS[method]).set_params(**damping).fit(r.net, r.X, r.y), r, 0.2)
    assert narrowed > 0


@pytest.mark.parametrize("kind", ["mlp", "conv", "embedding"])
def test_a_small_tolerance_gives_the_scores_of_the_dense_reference(kind, run, everywhere):
    r = run(kind, momentum=0.5)
    estimator = SourceAttribution(n_segments=3, curvature=apart(), tol=1e-9).fit(r.net, r.X, r.y)
    assert any(isinstance(value, LowRank) for term in terms_of(estimator, r.X_query) for value in term.values)
    assert relative(estimator.transform(r.X_query), r.source(n_segments=3)) < 1e-7


def test_and_in_the_metric_of_adamw(adamw, everywhere):
    r = adamw("mlp")
    segments = [metric_segment(r, "AdamW", a, a + 12) for a in (0, 12)]
    expected = walk(segments, [metric_operators(s) for s in segments], r.queries())
    estimator = SourceAttribution(n_segments=2, curvature=apart(), tol=1e-9).fit(r.net, r.X, r.y)
    assert relative(estimator.transform(r.X_query), expected) < 1e-7


def test_queries_are_taken_apart_once_per_segment(run, everywhere, monkeypatch):
    r = run("mlp", momentum=0.5)
    estimator = SourceAttribution(n_segments=2, tol=0.1).fit(r.net, r.X, r.y)
    assert min(len(segment.states) for segment in estimator._fitted) > 1
    calls, low_rank = [], _low_rank.low_rank
    monkeypatch.setattr(_meeting, "low_rank", lambda *args: calls.append(args) or low_rank(*args))
    estimator.transform(r.X_query)
    assert len(calls) == 2 * len(estimator._gradients.blocks)


def test_a_row_alone_meets_itself_exactly(run, everywhere):
    """No product is saved there."""
    r = run("conv", momentum=0.5)
    for name in ("source", "tracin"):
        exact = clone(METHODS[name]).fit(r.net, r.X, r.y).self_influence()
        assert np.array_equal(clone(METHODS[name]).set_params(tol=0.5).fit(r.net, r.X, r.y).self_influence(), exact)


def test_other_answers_of_the_same_products(run, everywhere):
    r = run("conv", momentum=0.5)
    for name in ("source", "tracin"):
        estimator = clone(METHODS[name]).set_params(tol=0.2).fit(r.net, r.X, r.y)
        scores = estimator.transform(r.X_query)
        top = estimator.top_influences(r.X_query, k=4)
        np.testing.assert_allclose(top.scores, np.sort(scores, axis=1)[:, :-5:-1], rtol=1e-5)
        exact = clone(METHODS[name]).fit(r.net, r.X, r.y)
        change, expected = (e.predict_reweighting(r.X_query, groups=[[0, 1, 2]]) for e in (estimator, exact))
        if name == "tracin":  # sums of scores; where weights are solved for, nothing is left out
            expected = -scores[:, :3].sum(1, keepdims=True)
            mean = (N_ROWS / (N_ROWS - 3) - 1) * scores[:, 3:].sum(1, keepdims=True)
            expected = expected + mean
        np.testing.assert_allclose(change, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_a_query_does_not_depend_on_the_others(run, everywhere):
    r = run("conv", momentum=0.5)
    estimator = SourceAttribution(n_segments=2, tol=0.1).fit(r.net, r.X, r.y)
    alone = np.vstack([estimator.transform(r.X_query[i : i + 1]) for i in range(N_QUERIES)])
    np.testing.assert_allclose(alone, estimator.transform(r.X_query), rtol=1e-5, atol=1e-9)


def test_the_parameter_is_one_of_every_gradient_method():
    for method in GRADIENT_METHODS:
        assert method().get_params()["tol"] is None
        assert clone(method(tol=0.1)).tol == 0.1


def test_it_may_be_set_after_fit_and_reaches_through_ensembles(run, everywhere):
    r = run("conv", momentum=0.5)
    estimator = SourceAttribution(n_segments=2).fit(r.net, r.X, r.y)
    exact = estimator.transform(r.X_query)
    loose = estimator.set_params(tol=0.3).transform(r.X_query)
    assert relative(loose, exact) > 1e-3
    assert np.array_equal(estimator.set_params(tol=None).transform(r.X_query), exact)
    ensemble = AttributionEnsemble(SourceAttribution(n_segments=2), nets=[r.net, r.net])
    with pytest.warns(UserWarning, match="same weights"):
        ensemble.set_params(estimator__tol=0.3).fit(r.X, r.y)
    np.testing.assert_allclose(ensemble.transform(r.X_query), loose, rtol=1e-5)
    for wrong in (0, 1.0, -0.1, "auto", float("nan")):
        with pytest.raises(ValueError, match="'tol' parameter"):
            SourceAttribution(tol=wrong).fit(r.net, r.X, r.y)
        with pytest.raises(ValueError, match="'tol' parameter"):
            estimator.set_params(tol=wrong).transform(r.X_query)


def test_layers_are_left_as_they_are_where_outer_products_are_more_work(run):
    r = run("encoder", momentum=0.5)
    exact = SourceAttribution(n_segments=2).fit(r.net, r.X, r.y).transform(r.X_query)
    assert np.array_equal(SourceAttribution(n_segments=2, tol=0.5).fit(r.net, r.X, r.y).transform(r.X_query), exact)
