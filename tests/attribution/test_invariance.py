"""What must not change scores: batches, order, chunks, caches; what must: other rows, seeds, weights."""

from __future__ import annotations

import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetRegressor
from skorch.dataset import ValidSplit

from sklearn_source import (
    TRAK,
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
    TrajectoryRecorder,
)
from sklearn_source.curvature import CURVATURES, EKFAC, KFAC, Curvature, _cache
from sklearn_source.gradients.algebra import Factored
from sklearn_source.modules import MLP
from sklearn_source.trajectory import Trajectory
from sklearn_source.utils._config import DEFAULT_BYTES
from tests._methods import apart, joint
from tests.attribution._runs import Hyper, Run, make_rows, regressor, relative
from tests.reference import source_scores

METHODS = {
    "source": SourceAttribution(n_segments=3),
    "source-sampled": SourceAttribution(n_segments=2, curvature=EKFAC(fisher="sampled", n_samples=2), random_state=3),
    "source-empirical": SourceAttribution(n_segments=2, curvature=KFAC(fisher="empirical")),
    "source-parameters": SourceAttribution(
        n_segments=2, averaging="parameters", curvature=EKFAC(fisher="sampled"), random_state=3
    ),
    "source-exact": SourceAttribution(n_segments=2, curvature="exact"),
    "influence": InfluenceFunctions(),
    "influence-sampled": InfluenceFunctions(curvature=EKFAC(fisher="sampled", n_samples=3), random_state=3),
    "influence-joint": InfluenceFunctions(curvature=joint(), damping=0.05),
    "source-krylov": SourceAttribution(n_segments=2, curvature=EKFAC(coupling="krylov", n_iter=3)),
    "tracin": TracIn(),
    "gradients": GradientSimilarity(),
    "representations": RepresentationSimilarity(),
    "trak": TRAK(n_components=12, n_checkpoints=2, random_state=3),
}
ALL = pytest.mark.parametrize("name", METHODS)
HYPER = {"momentum": 0.5, "weight_decay": 0.02}


def fitted(name, r, order=None, **changes):
    method = clone(METHODS[name]).set_params(**changes)
    order = np.arange(len(r.X)) if order is None else order
    return method.fit(r.net, r.X[order], r.y[order])


# What a solve across layers does with batches and orders is that of "source-krylov"; more iterations are only slower.
CASES = [(name, kind) for name in METHODS for kind in ("mlp", "conv") if (name, kind) != ("influence-joint", "conv")]
NETWORKS = pytest.mark.parametrize(("name", "kind"), CASES)


@NETWORKS
def test_batch_size_of_training_rows_and_queries(name, kind, run):
    r = run(kind, "float64" if name == "influence-joint" else "float32", **HYPER)
    whole = fitted(name, r, batch_size=64)
    expected, own = whole.transform(r.X_query), whole.self_influence()
    few = kind == "conv" or name in ("influence-joint", "source-krylov")  # a pass over the columns for each product
    for batch_size in (5,) if few else (1, 5):
        other = fitted(name, r, batch_size=batch_size)
        assert relative(other.transform(r.X_query), expected) < 1e-5
        assert relative(other.self_influence(), own) < 1e-5 or name == "representations"
    assert relative(fitted(name, r).transform(r.X_query), expected) < 1e-5
    one = np.concatenate([whole.transform(r.X_query[i : i + 1]) for i in range(len(r.X_query))])
    assert relative(one, expected) < 1e-5


@NETWORKS
def test_permuting_training_rows_permutes_columns(name, kind, run):
    r = run(kind, "float64" if name == "influence-joint" else "float32", **HYPER)
    order = np.random.default_rng(4).permutation(len(r.X))
    first, other = fitted(name, r), fitted(name, r, order)
    assert relative(other.transform(r.X_query), first.transform(r.X_query)[:, order]) < 1e-5
    if name != "representations":
        assert relative(other.self_influence(), first.self_influence()[order]) < 1e-5


@ALL
def test_the_strongest_rows_are_those_of_the_matrix(name, run):
    r = run("mlp", **HYPER)
    method = fitted(name, r, batch_size=5)
    matrix = method.transform(r.X_query)
    for order, sign in (("supporting", -1), ("opposing", 1)):
        top = method.top_influences(r.X_query, k=4, order=order)
        np.testing.assert_array_equal(top.indices, np.argsort(sign * matrix, axis=1, kind="stable")[:, :4])
        np.testing.assert_allclose(top.scores, np.take_along_axis(matrix, top.indices, 1), rtol=1e-6)
    everything = method.top_influences(r.X_query, k=len(r.X))
    np.testing.assert_allclose(everything.scores, -np.sort(-matrix, axis=1), rtol=1e-6)


@pytest.mark.parametrize("name", ["source", "influence", "tracin"])
def test_queries_in_chunks(name, run, monkeypatch):
    """A budget of a few queries at a time: more passes over the training rows, the same numbers."""
    r = run("conv", **HYPER)
    X, _ = make_rows("conv", 11, "float64", 9)
    expected = fitted(name, r).transform(X)
    method = fitted(name, r)
    monkeypatch.setitem(DEFAULT_BYTES, "query_vectors", 8 * method._gradients.n_parameters * 4 * 2)
    assert method._queries_at_once() < 11
    assert relative(method.transform(X), expected) < 1e-6
    top, best = method.top_influences(X, k=3), np.argsort(-expected, axis=1)[:, :3]
    np.testing.assert_array_equal(top.indices, best)


@pytest.mark.parametrize("name", ["source", "influence", "tracin", "gradients"])
@pytest.mark.parametrize("hidden", [(2,), (32, 16)], ids=["formed", "factored"])
def test_what_the_budget_of_queries_counts_is_what_they_take(name, hidden, monkeypatch):
    X, y = make_rows("regressor", 24, "float32", 0)
    net = NeuralNetRegressor(
        MLP, module__n_features=3, module__hidden=hidden, max_epochs=4, train_split=None, verbose=0,
        callbacks=[TrajectoryRecorder()],
    )  # fmt: skip
    method = clone(METHODS[name])
    if name in ("source", "influence"):  # what couples blocks is counted in tests of its own
        method.set_params(curvature=apart())
    method.fit(net.fit(X, y), X, y)
    prepared = []
    prepare = type(method)._prepare_queries
    monkeypatch.setattr(type(method), "_prepare_queries", lambda *args: prepared.append(prepare(*args)) or prepared[0])
    method.transform(X[:6])
    values = [v for term in prepared[0] for v in term.values]
    tensors = [t for v in values for t in (v.tensors() if isinstance(v, Factored) else [v])]
    held, counted = sum(t.numel() * t.element_size() for t in tensors) / 6, method._bytes_per_query()
    if name == "source":  # two more vectors on the way from segment to segment
        counted -= 2 * 4 * method._gradients.n_parameters
    assert held == counted


@pytest.mark.parametrize("name", ["source-sampled", "source-parameters", "influence-sampled"])
def test_seeds_decide_the_draws(name, run):
    r = run("mlp", **HYPER)
    first = fitted(name, r).transform(r.X_query)
    assert np.array_equal(fitted(name, r).transform(r.X_query), first)
    assert relative(fitted(name, r, random_state=4).transform(r.X_query), first) > 1e-3
    exact = fitted(name, r, curvature__fisher="exact").transform(r.X_query)
    errors = [relative(fitted(name, r, curvature__n_samples=n).transform(r.X_query), exact) for n in (1, 64)]
    assert errors[1] < 0.5 * errors[0]


# --- memory= of a curvature --------------------------------------------------------------------------------------


def source(**options):
    return SourceAttribution().set_params(**options)


class Counted:
    """How often covariances and curvatures were really computed."""

    def __init__(self, monkeypatch):
        self.moments, self.curvatures = [], []
        moments = _cache.moments

        def counting(stream, c, basis):
            self.moments.append(stream.checkpoints[c].step)
            return moments(stream, c, basis)

        monkeypatch.setattr(_cache, "moments", counting)
        for name, kind in CURVATURES.items():
            if name != "identity":
                fit = kind._fit
                monkeypatch.setattr(
                    kind, "_fit", lambda *a, fit=fit, name=name: self.curvatures.append(name) or fit(*a)
                )

    def take(self):
        computed = sorted(self.moments), list(self.curvatures)
        self.moments.clear(), self.curvatures.clear()
        return computed


@pytest.mark.parametrize(
    "options", [{}, {"curvature__fisher": "sampled", "random_state": 0}, {"curvature": "kfac"}], ids=str
)
def test_memory_gives_the_same_and_computes_once(options, run, tmp_path, monkeypatch):
    r = run("conv", **HYPER)
    expected = {n: source(n_segments=n, **options).fit(r.net, r.X, r.y).transform(r.X_query) for n in (1, 2, 3)}
    counted = Counted(monkeypatch)
    memory = joblib.Memory(str(tmp_path), verbose=0)
    steps = [0, 4, 8, 12, 16, 20, 24]
    for n, moments in ((3, steps), (2, []), (1, []), (3, [])):
        estimator = source(n_segments=n, curvature__memory=memory, **options).fit(r.net, r.X, r.y)
        computed = counted.take()
        assert computed[0] == moments
        assert len(computed[1]) == (0 if n == 3 and not moments else n)
        assert relative(estimator.transform(r.X_query), expected[n]) < 1e-6
    for place in (str(tmp_path), tmp_path):
        again = source(n_segments=2, curvature__memory=place, **options).fit(r.net, r.X, r.y)
        assert counted.take() == ([], [])
        assert relative(again.transform(r.X_query), expected[2]) < 1e-6


def test_memory_tells_apart_what_differs(run, tmp_path, monkeypatch):
    r = run("mlp", **HYPER)
    counted = Counted(monkeypatch)
    source(n_segments=1, curvature__memory=str(tmp_path)).fit(r.net, r.X, r.y)
    assert len(counted.take()[0]) == 7
    for changes in (
        {"curvature__fisher": "empirical"}, {"curvature__basis": "shampoo"}, {"layers": "3"},
        {"curvature__fisher": "sampled", "random_state": 0}, {"curvature__fisher": "sampled", "random_state": 1},
        {"curvature__fisher": "sampled", "random_state": 1, "curvature__n_samples": 2},
    ):  # fmt: skip
        estimator = source(n_segments=1, curvature__memory=str(tmp_path), **changes).fit(r.net, r.X, r.y)
        assert len(counted.take()[0]) == 7, changes
        plain = source(n_segments=1, **changes).fit(r.net, r.X, r.y).transform(r.X_query)
        assert relative(estimator.transform(r.X_query), plain) < 1e-6
        counted.take()
    # K-FAC is another curvature of the same covariances.
    source(n_segments=1, curvature=KFAC(memory=str(tmp_path))).fit(r.net, r.X, r.y)
    assert counted.take() == ([], ["kfac"])
    averaged = {"n_segments": 2, "averaging": "parameters", "curvature__memory": str(tmp_path)}
    source(**averaged).fit(r.net, r.X, r.y)
    assert len(counted.take()[0]) == 2  # two mean networks
    source(**averaged).fit(r.net, r.X, r.y)
    assert counted.take() == ([], [])
    # influence functions at the trained weights: their own key, kept too
    InfluenceFunctions(curvature=EKFAC(memory=str(tmp_path))).fit(r.net, r.X, r.y)
    assert len(counted.take()[1]) == 1
    InfluenceFunctions(curvature=EKFAC(memory=str(tmp_path)), damping=3.0).fit(r.net, r.X, r.y)
    assert counted.take() == ([], [])


class OwnEKFAC(EKFAC):
    """A curvature of another package, whose code may change without a sign."""

    def _fit(self, stream):
        OWN.append(stream)
        return super()._fit(stream)


class OwnCurvature(Curvature):
    def __init__(self, *, memory=None):
        self.memory = memory

    def fit(self, stream):
        OWN.append(stream)
        return EKFAC().fit(stream)


OWN = []


@pytest.mark.parametrize("kind", [OwnEKFAC, OwnCurvature])
def test_curvatures_of_others_are_never_kept(kind, run, tmp_path):
    r = run("mlp", **HYPER)
    OWN.clear()
    for number in (1, 2):
        InfluenceFunctions(curvature=kind(memory=str(tmp_path))).fit(r.net, r.X, r.y)
        assert len(OWN) == number
    assert not list(tmp_path.iterdir())


def test_memory_tells_apart_targets_and_buffers(run, tmp_path):
    """Other targets with the same X, other buffers with the same parameters."""
    r = run("conv", **HYPER)

    def scores(factor, y):
        points = r.trajectory.checkpoints
        states = []
        for i, c in enumerate(points):
            buffers = {k: v.clone() for k, v in c.buffers.items()}
            if i + 1 < len(points):  # the last one must be the trained network
                buffers["1.running_var"] *= factor
            states.append({**{k: v.clone() for k, v in c.parameters.items()}, **buffers})
        trajectory = Trajectory.from_checkpoints(
            states, [c.step for c in points], 0.05, module=r.net.module_, n_rows=len(r.X)
        )  # fmt: skip
        found = []
        for memory in (str(tmp_path), None):
            curvature = EKFAC(fisher="empirical", memory=memory)
            estimator = SourceAttribution(n_segments=1, curvature=curvature, trajectory=trajectory)
            found.append(estimator.fit(r.net, r.X, y).transform(r.X_query))
        assert relative(found[0], found[1]) < 1e-6
        return found[0]

    first = scores(1.0, r.y)
    assert relative(scores(1.5, r.y), first) > 1e-3
    assert relative(scores(1.0, (r.y + 1) % 3), first) > 1e-3


# --- rows that were held out ----------------------------------------------------------------------------------------


def test_rows_held_out_by_the_default_train_split_score_zero():
    class HeldOut(Run):
        def train(self):
            torch.manual_seed(0)
            self.net.set_params(train_split=ValidSplit(3, stratified=False))
            self.net.fit(self.X, self.y)

    r = HeldOut("mlp", "float64", Hyper(lr=0.1))
    used = np.sort(r.trajectory.stages[0].rows)
    unused = np.setdiff1d(np.arange(12), used)
    assert len(used) == 8
    total = r.trajectory.n_steps
    expected = source_scores([r.segment(0, total, rows=used)], r.queries(), n_train=12)
    order = np.random.default_rng(0).permutation(12)
    for method in (SourceAttribution(n_segments=1, curvature=apart()), TracIn(), InfluenceFunctions()):
        with pytest.warns(UserWarning, match="4 of the 12 rows"):
            method.fit(r.net, r.X[order], r.y[order])
        found = method.transform(r.X_query)[:, np.argsort(order)]
        assert not found[:, unused].any()
        assert (found[:, used] != 0).all()
        assert not method.self_influence()[np.argsort(order)][unused].any()
        if isinstance(method, SourceAttribution):
            assert relative(found, expected) < 1e-7


def test_a_net_as_skorch_makes_it_holds_out_a_fifth():
    X, y = make_rows("regressor", 20, "float32", 0)
    net = NeuralNetRegressor(regressor, max_epochs=3, verbose=0, callbacks=[TrajectoryRecorder()]).fit(X, y)
    with pytest.warns(UserWarning, match="4 of the 20 rows"):
        estimator = SourceAttribution(n_segments=1).fit(net, X, y)
    assert (estimator.transform(X[:3]) == 0).all(0).sum() == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.transform(X[:3])
