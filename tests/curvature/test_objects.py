"""Curvatures as objects: parameters as in scikit-learn, names for short, and one of a stranger's own."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier

import sklearn_source.curvature._base as protocols
from sklearn_source import InfluenceFunctions, SourceAttribution, config_context
from sklearn_source.curvature import (
    CURVATURES,
    EKFAC,
    KFAC,
    Basis,
    Curvature,
    Diagonal,
    EigenCurvature,
    ExactGaussNewton,
    FittedCurvature,
    GramCurvature,
    resolve_curvature,
)
from sklearn_source.curvature._covariances import eigenbases
from tests._methods import apart
from tests._nets import make_net

RNG = np.random.RandomState(0)
X = RNG.normal(size=(20, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)  # three classes: sampled columns differ from exact ones
QUERIES = RNG.normal(size=(3, 4)).astype(np.float32)

OTHERS = {  # values that are no default
    "basis": "shampoo",
    "fisher": "sampled",
    "n_samples": 3,
    "cache_size": 7,
    "coupling": "krylov",
    "n_iter": 3,
    "max_rows": 7,
    "memory": "somewhere",
}
every_kind = pytest.mark.parametrize("kind", CURVATURES.values())
both_methods = pytest.mark.parametrize("method", [SourceAttribution, InfluenceFunctions])


@pytest.fixture(scope="module")
def net():
    return fitted_net()


def fitted_net(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"module__n_outputs": 3, "criterion": torch.nn.CrossEntropyLoss, "batch_size": 10, **options}
        return make_net(NeuralNetClassifier, **options).fit(X, Y)


def scores(method, net, curvature, **options):
    return method(curvature=curvature, random_state=0, **options).fit(net, X, Y).transform(QUERIES)


# --- parameters ---------------------------------------------------------------------------------------------------


@every_kind
def test_parameters_as_in_scikit_learn(kind):
    names = list(inspect.signature(kind).parameters)
    assert sorted(kind().get_params()) == sorted(names)
    options = {name: OTHERS[name] for name in names}
    one = kind(**options)
    assert one.get_params() == options
    assert kind().set_params(**options).get_params() == options
    for other in (clone(one), pickle.loads(pickle.dumps(one)), eval(repr(one), {kind.__name__: kind})):
        assert type(other) is kind
        assert other is not one
        assert other.get_params() == options
    assert repr(kind()) == f"{kind.__name__}()"
    for name in names:
        assert f"{name}={options[name]!r}" in repr(one)
    with pytest.raises(TypeError, match="argument"):
        kind("exact")
    with pytest.raises(ValueError, match="Invalid parameter 'damping'"):
        kind().set_params(damping=1)


@every_kind
def test_every_parameter_is_documented_where_it_is(kind):
    for name in inspect.signature(kind).parameters:
        assert re.search(rf"^    {name} : ", kind.__doc__, re.MULTILINE), name


@both_methods
def test_parameters_of_the_curvature_are_the_methods_nested_ones(method):
    est = method(curvature=EKFAC(basis="shampoo", n_samples=2))
    assert est.get_params()["curvature__basis"] == "shampoo"
    copy = clone(est).set_params(curvature__basis="kfac")
    assert est.curvature.basis == "shampoo"
    assert copy.curvature.get_params() == EKFAC(n_samples=2).get_params()
    assert "EKFAC(basis='shampoo', n_samples=2)" in repr(est)
    assert pickle.loads(pickle.dumps(est)).get_params()["curvature__n_samples"] == 2
    assert clone(est).set_params(curvature="diagonal").curvature == "diagonal"


@both_methods
def test_a_name_becomes_an_object_where_its_parameters_are_set(method):
    est = method().set_params(curvature__fisher="empirical")
    assert est.curvature.get_params() == EKFAC(fisher="empirical").get_params()
    est = method().set_params(curvature__fisher="empirical", curvature="diagonal")
    assert repr(est.curvature) == "Diagonal(fisher='empirical')"
    assert method().set_params(batch_size=3).curvature == "ekfac"


@both_methods
def test_fit_writes_no_parameter(method, net, tmp_path):
    curvature = EKFAC(fisher="sampled", memory=str(tmp_path))
    before = dict(vars(curvature))
    est = method(curvature=curvature, random_state=0).fit(net, X, Y)
    assert est.curvature is curvature
    assert vars(curvature) == before


# --- names and objects --------------------------------------------------------------------------------------------


@both_methods
@pytest.mark.parametrize("name", CURVATURES)
def test_a_name_and_its_object_give_the_same_scores(method, name, net):
    expected = scores(method, net, name)
    assert expected.any()
    np.testing.assert_array_equal(scores(method, net, CURVATURES[name]()), expected)
    assert type(resolve_curvature(name)) is CURVATURES[name]


def test_what_an_object_fits(problem):
    p = problem("mlp", torch.float64)
    for kind in CURVATURES.values():
        fitted = kind().fit(p.stream())
        assert isinstance(fitted, FittedCurvature)
        assert isinstance(fitted, GramCurvature if kind is ExactGaussNewton else EigenCurvature)


@both_methods
@pytest.mark.parametrize("kind", [EKFAC, KFAC, Diagonal, ExactGaussNewton])
def test_parameters_of_the_object_reach_the_fit(method, kind, net):
    expected = scores(method, net, kind())
    other = [scores(method, net, kind(fisher="empirical")), scores(method, net, kind(fisher="sampled"))]
    other.append(scores(method, net, kind(fisher="sampled", n_samples=5)))
    for i, some in enumerate([expected, *other]):
        for more in other[i:]:
            assert np.abs(some - more).max() > 1e-5 * np.abs(some).max()


def test_only_what_needs_a_second_pass_keeps_gradients(problem):
    p = problem("mlp", torch.float64)
    assert [kind().cache_size for kind in CURVATURES.values()] == ["auto", 0, 0, 0, 0]

    def kept_by(curvature):
        stream = curvature.stream(
            p.network, p.engine, p.rows, np.arange(p.n_rows), p.checkpoints, [0.25, 0.75], keys=np.arange(p.n_rows),
            identified=False, seed=0, batch_size=lambda n_columns: 12 // n_columns,
        )  # fmt: skip
        assert stream.batch_size == 4  # three outputs, each a column
        curvature.fit(stream)
        return len(stream._kept)

    assert kept_by(EKFAC()) == kept_by(EKFAC(cache_size=1)) == 6
    with config_context(memory_budget=2000):  # bytes
        assert kept_by(EKFAC()) < 6
    assert kept_by(EKFAC(cache_size=0)) == 0
    assert kept_by(KFAC()) == kept_by(Diagonal()) == 0


def test_the_diagonal_of_the_paper_has_the_same_fisher(monkeypatch):
    net = fitted_net(optimizer=torch.optim.Adam)
    streams, fit = [], Diagonal.fit
    monkeypatch.setattr(Diagonal, "fit", lambda self, stream: streams.append(stream) or fit(self, stream))
    scores(SourceAttribution, net, EKFAC(fisher="sampled", n_samples=4), adam="paper", n_segments=1)
    assert [(stream.fisher, stream.n_samples) for stream in streams] == [("sampled", 4)]


# --- one of a stranger's own --------------------------------------------------------------------------------------


class SquaredGradients(Curvature):
    """The diagonal of H from its definition."""

    def __init__(self, *, fisher="auto", power=2):
        self.fisher = fisher
        self.power = power

    def fit(self, stream):
        totals = [torch.zeros(b.shape, dtype=torch.float64, device=stream.device) for b in stream.blocks]
        for c, weight in enumerate(stream.weights):
            for batch in stream.columns(c):
                for total, columns in zip(totals, batch):
                    for gradients in columns:
                        squares = gradients.matrix().double().pow(self.power).sum(0)
                        total += weight / stream.n_rows * squares
        for total, penalty in zip(totals, stream.penalties):
            if penalty is not None:
                total += penalty
        return EigenCurvature([Basis() for _ in totals], [total.to(stream.dtype) for total in totals])


@both_methods
@pytest.mark.parametrize("fisher", ["auto", "empirical", "sampled"])
def test_a_curvature_of_ones_own(method, fisher, net):
    actual = scores(method, net, SquaredGradients(fisher=fisher))
    np.testing.assert_allclose(
        actual, scores(method, net, apart("diagonal", fisher=fisher)), rtol=1e-5, atol=1e-6 * np.abs(actual).max()
    )
    own = method(curvature=SquaredGradients(fisher=fisher), random_state=0).set_params(curvature__power=4)
    assert np.abs(own.fit(net, X, Y).transform(QUERIES) - actual).max() > 1e-3 * np.abs(actual).max()
    np.testing.assert_array_equal(clone(own).fit(net, X, Y).transform(QUERIES), own.transform(QUERIES))


@pytest.mark.parametrize("adam", ["metric", "paper"])
def test_a_curvature_of_ones_own_after_an_adaptive_optimizer(adam):
    """Decay that enters the gradient is a penalty in the metric of the preconditioner."""
    net = fitted_net(optimizer=torch.optim.Adam, optimizer__weight_decay=0.1, lr=0.01)
    actual = scores(SourceAttribution, net, SquaredGradients(), adam=adam)
    np.testing.assert_allclose(actual, scores(SourceAttribution, net, apart("diagonal"), adam=adam), rtol=1e-4)


def test_the_curvature_that_the_protocols_show_is_one(net):
    """What a stranger reads, run as it is written."""
    code = inspect.cleandoc(protocols.__doc__.split("from its definition::")[1].split("\nThree things")[0])
    names = {}
    exec(code.rsplit("\n\n", 1)[0], names)
    curvature = names["SquaredGradients"](fisher="empirical")
    actual = scores(InfluenceFunctions, net, curvature)
    np.testing.assert_allclose(
        actual, scores(InfluenceFunctions, net, apart("diagonal", fisher="empirical")), rtol=1e-5
    )
    assert len(code.splitlines()) < 30


def test_protocols_are_abstract():
    class NoFit(Curvature):
        pass

    class NoSpectrum(FittedCurvature):
        encode = decode = scale = change = in_metric = mean_eigenvalue = None

    with pytest.raises(TypeError, match="abstract method '?fit"):
        NoFit()
    with pytest.raises(TypeError, match="abstract method '?spectrum"):
        NoSpectrum()


@both_methods
def test_a_fit_of_ones_own_that_returns_something_else(method, net):
    class Wrong(Curvature):
        def fit(self, stream):
            return self

    est = method(curvature=Wrong())
    with pytest.raises(TypeError, match=r"expected Wrong.fit to return a FittedCurvature, got a Wrong"):
        est.fit(net, X, Y)
    assert not hasattr(est, "net_")


def test_fitted_curvatures_are_in_place_and_applied_by_the_protocol():
    """What a stranger's fitted curvature need not write itself."""

    class Half(FittedCurvature):
        bases = [Basis()]

        def encode(self, vectors):
            return vectors

        decode = encode

        def scale(self, phi, encoded):
            return [phi(torch.full((1,), 0.5), i) * v for i, v in enumerate(encoded)]

        change = in_metric = mean_eigenvalue = spectrum = None

    v = [torch.ones(2, 1, 1, 3)]
    for result in (Half().apply(lambda values, i: values + i, v), Half().scale_(lambda values, i: values + i, v)):
        assert torch.equal(result[0], v[0] / 2)


def test_memory_in_every_form(net, tmp_path):
    forms = [str(tmp_path), Path(tmp_path), joblib.Memory(tmp_path, verbose=0), joblib.Memory(None), None]
    actual = [scores(InfluenceFunctions, net, EKFAC(memory=memory)) for memory in forms]
    for some in actual[1:]:
        np.testing.assert_array_equal(some, actual[0])
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("unreached", [[], [0, 3], [1, 2, 4], [0, 1, 2, 3, 4, 5]])
def test_eigenbases_of_what_no_row_reaches(unreached):
    """Zeros first, in coordinates of their own; the rest as if they were not there; one group reaching is enough."""
    rows = np.random.default_rng(0).normal(size=(2, 9, 6))
    rows[:, :, unreached] = 0
    rows[0, :, 5] = 0
    moment = torch.as_tensor(rows.transpose(0, 2, 1) @ rows)
    (basis,), ((_, values),) = eigenbases([(moment, None)], torch.float64)
    torch.testing.assert_close(basis.right @ torch.diag_embed(values) @ basis.right.mT, moment)
    torch.testing.assert_close(basis.right.mT @ basis.right, torch.eye(6, dtype=torch.float64).expand(2, -1, -1))
    torch.testing.assert_close(values, torch.linalg.eigvalsh(moment).clamp_min(0))
    own = torch.eye(len(unreached), dtype=torch.float64).expand(2, -1, -1)
    assert torch.equal(basis.right[:, unreached, : len(unreached)], own)
