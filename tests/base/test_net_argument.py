"""The three ways in: a trained net, a frozen one, and one to be trained; and what scikit-learn does with each."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

import sklearn_source
from sklearn_source import GradientSimilarity, InfluenceFunctions, SourceAttribution, TracIn, TrajectoryRecorder
from sklearn_source.curvature import EKFAC
from sklearn_source.modules import MLP
from tests._methods import METHODS, RECORDED
from tests._nets import make_net

INSTANCES = [method() for method in METHODS]
RNG = np.random.RandomState(0)
X = RNG.normal(size=(20, 4)).astype(np.float32)
Y = (X[:, :1] - X[:, 1:2] * X[:, 2:3] + 0.1 * RNG.normal(size=(20, 1))).astype(np.float32)
LABELS = (Y[:, 0] > 0).astype(np.int64)
QUERIES = RNG.normal(size=(5, 4)).astype(np.float32)


def trained(net, X=X, y=Y):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return net.fit(X, y)


@pytest.fixture(scope="module")
def net():
    return trained(make_net())


@pytest.fixture(scope="module")
def expected(net):
    return SourceAttribution().fit(net, X, Y).transform(QUERIES)


def same(found, expected, rtol=1e-5):
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())


# --- signatures -----------------------------------------------------------------------------------------------------


def test_positions_and_names(net, expected):
    frozen = FrozenEstimator(net)
    for fit in (
        lambda est: est.fit(net, X, Y),
        lambda est: est.fit(net, X, y=Y),
        lambda est: est.fit(net, X=X, y=Y),
        lambda est: est.fit(X, Y, net=net),
        lambda est: est.fit(X=X, y=Y, net=net),
        lambda est: est.fit(frozen, X, Y),
        lambda est: est.fit(X, Y, net=frozen),
        lambda est: est.fit(net, X, Y, stage=np.zeros(len(X), dtype=int)),
        lambda est: est.set_params(net=frozen).fit(X, Y),
        lambda est: est.set_params(net=frozen).fit(X, y=Y, stage=[0] * len(X)),
        lambda est: est.set_params(net=make_net()).fit(net, X, Y),  # the argument comes before the constructor's
    ):
        same(fit(SourceAttribution()).transform(QUERIES), expected)


def test_wrong_calls_say_how_to_call(net):
    with pytest.raises(TypeError, match="two networks"):
        SourceAttribution().fit(net, X, Y, net=net)
    with pytest.raises(TypeError, match=r"or fit\(net, X, y\).* fitted pipeline that ends in one.*first of them a MLP"):
        SourceAttribution().fit(net.module_, X, Y)
    with pytest.raises(TypeError, match="4 positional arguments|3 positional"):
        SourceAttribution().fit(net, X, Y, np.zeros(len(X)))
    with pytest.raises(ValueError, match="no network: pass a trained skorch net"):
        SourceAttribution().fit(X, Y)
    with pytest.raises(TypeError, match="a pipeline that ends in one, got a MLP"):
        SourceAttribution().fit(X, Y, net=net.module_)
    with pytest.raises(TypeError, match="got a StandardScaler"):
        SourceAttribution(StandardScaler()).fit(X, Y)
    with pytest.raises(TypeError, match="a pipeline that ends in one, got a int"):
        SourceAttribution(3).fit(X, Y)


def test_fit_transform(net, expected):
    same(SourceAttribution().fit_transform(net, X, Y), SourceAttribution().fit(net, X, Y).transform(X))
    same(
        SourceAttribution(FrozenEstimator(net), measurement="neg_loss").fit_transform(X, Y),
        SourceAttribution(measurement="neg_loss").fit(net, X, Y).transform(X, Y),
    )


# --- inside scikit-learn --------------------------------------------------------------------------------------------


def test_pipeline_scales_in_float64():
    """The scaler hands out float64; the net is float32 and knew its rows as float32."""
    wide = (X * [1, 10, 100, 1000] + 7).astype(np.float64)
    scaler = StandardScaler().fit(wide)
    net = trained(make_net(), scaler.transform(wide).astype(np.float32))
    pipe = make_pipeline(StandardScaler(), SourceAttribution(FrozenEstimator(net)))
    queries = QUERIES * [1, 10, 100, 1000] + 7
    found = pipe.fit(wide, Y).transform(queries)
    direct = SourceAttribution().fit(net, scaler.transform(wide), Y).transform(scaler.transform(queries))
    same(found, direct)
    assert found.dtype == np.float32
    assert list(pipe.get_feature_names_out()) == [f"row{i}" for i in range(len(X))]


@pytest.mark.parametrize("method", INSTANCES, ids=lambda method: type(method).__name__)
def test_pipeline_trains_a_bare_net(method):
    pipe = Pipeline([("scale", StandardScaler()), ("rows", clone(method).set_params(net=make_net(), random_state=0))])
    found = pipe.fit(X.astype(np.float64), Y.astype(np.float64)).transform(QUERIES)
    assert found.shape == (5, 20)
    same(clone(pipe).fit(X.astype(np.float64), Y[:, 0]).transform(QUERIES), found)  # skorch wants (n, 1): it gets it


def test_grid_search_over_segments(net):
    everything = np.arange(len(X))
    search = GridSearchCV(
        SourceAttribution(FrozenEstimator(net)),
        {"n_segments": [1, 2, 3]},
        scoring=lambda estimator, X, y: float(np.abs(estimator.transform(X)).mean()),
        cv=[(everything, everything)],
        error_score="raise",
    )
    search.fit(X, Y)
    for n_segments, score in zip([1, 2, 3], search.cv_results_["mean_test_score"]):
        direct = SourceAttribution(n_segments=n_segments).fit(net, X, Y).transform(X)
        assert score == pytest.approx(np.abs(direct).mean(), rel=1e-5)
    assert len(search.best_estimator_.segments_) == search.best_params_["n_segments"]


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("method", INSTANCES, ids=lambda method: type(method).__name__)
def test_cross_validation_over_a_frozen_net_is_refused(method, recorded):
    if not recorded and type(method) in RECORDED:
        return
    frozen = FrozenEstimator(trained(make_net(recorded=recorded)))
    with pytest.raises(ValueError, match="trained on.*(?s:.)*frozen net meets subsets of its rows"):
        cross_val_score(
            clone(method).set_params(net=frozen),
            X,
            Y,
            cv=KFold(4),
            scoring=lambda estimator, X, y: 0.0,
            error_score="raise",
        )


def test_cross_validation_retrains_a_bare_net():
    est = SourceAttribution(make_net(), random_state=0)
    shapes = cross_val_score(est, X, Y, cv=KFold(4), scoring=lambda e, X, y: float(e.transform(X).shape[1]))
    assert shapes.tolist() == [15.0] * 4


def test_set_output_names_and_index(net, expected):
    frame = pd.DataFrame(X, columns=list("abcd"))
    queries = pd.DataFrame(QUERIES, columns=list("abcd"), index=[f"q{i}" for i in range(5)])
    est = SourceAttribution(FrozenEstimator(net)).set_output(transform="pandas").fit(frame, pd.DataFrame(Y))
    found = est.transform(queries)
    assert list(found.columns) == list(est.get_feature_names_out()) == [f"row{i}" for i in range(20)]
    assert list(found.index) == list(queries.index)
    same(found.to_numpy(), expected)
    assert est.feature_names_in_.tolist() == list("abcd")
    assert est.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names should match"):
        est.transform(queries[list("dcba")])
    assert est.fit_transform(frame, pd.DataFrame(Y)).shape == (20, 20)


def test_html_repr(net):
    for est in (SourceAttribution(), SourceAttribution(FrozenEstimator(net)), SourceAttribution(make_net())):
        assert "SourceAttribution" in estimator_html_repr(est)
    assert "SourceAttribution" in estimator_html_repr(SourceAttribution().fit(net, X, Y))
    assert "n_segments=2" in repr(SourceAttribution(n_segments=2))


def test_clone_keeps_a_frozen_net_and_drops_the_rest(net, expected):
    fitted = SourceAttribution(FrozenEstimator(net), n_segments=2).fit(X, Y)
    copy = clone(fitted)
    assert copy.net.estimator is net
    with pytest.raises(NotFittedError):
        copy.transform(QUERIES)
    same(copy.set_params(n_segments="auto").fit(X, Y).transform(QUERIES), expected)


# --- kinds of data --------------------------------------------------------------------------------------------------


class Named(nn.Module):
    """Takes its columns by name, as skorch hands out dicts and data frames."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(1, 3), nn.Linear(1, 3)
        self.out = nn.Linear(6, 1)

    def forward(self, a, b):
        return self.out(torch.cat([self.left(a), self.right(b)], 1).tanh())


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 3), nn.Linear(3, 1)

    def forward(self, X):
        return self.out(self.embed(X).mean(1))


def test_the_same_rows_in_any_container(net, expected):
    pairs = {
        "float64": (X.astype(np.float64), Y.astype(np.float64)),
        "lists": (X.tolist(), Y.tolist()),
        "tensors": (torch.from_numpy(X), torch.from_numpy(Y)),
        "array and tensor": (X, torch.from_numpy(Y)),
        "fortran order": (np.asfortranarray(X), Y),
        "frame": (pd.DataFrame(X, columns=list("abcd")), pd.DataFrame(Y)),
        "TensorDataset": (torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), None),
        "skorch Dataset": (net.get_dataset(X, Y), None),
    }
    for name, (rows, targets) in pairs.items():
        est = SourceAttribution().fit(net, rows, targets)
        for queries in (QUERIES, QUERIES.astype(np.float64), torch.from_numpy(QUERIES), QUERIES.tolist()):
            if name == "frame" and not hasattr(queries, "iloc"):
                queries = pd.DataFrame(np.asarray(queries), columns=list("abcd"))
            same(est.transform(queries), expected)
        assert getattr(est, "n_features_in_", 4) == 4


def test_features_are_forgotten_where_the_next_rows_have_none(net):
    est = SourceAttribution().fit(net, pd.DataFrame(X, columns=list("abcd")), Y)
    est.fit(net, net.get_dataset(X, Y))
    assert not hasattr(est, "n_features_in_")
    assert not hasattr(est, "feature_names_in_")


@pytest.mark.parametrize("kind", [dict, pd.DataFrame])
def test_columns_by_name(kind):
    columns = kind({"a": X[:, :1] if kind is dict else X[:, 0], "b": X[:, 1:2] if kind is dict else X[:, 1]})
    net = trained(make_net(module=Named), columns, Y)
    est = SourceAttribution().fit(net, columns, Y)
    scores = est.transform(columns)
    assert scores.shape == (20, 20)
    as_dict = {"a": torch.from_numpy(X[:, :1]), "b": torch.from_numpy(X[:, 1:2])}
    same(est.transform(as_dict), scores)
    if kind is dict:  # a frame's fingerprints are those of its table, not of named inputs
        same(SourceAttribution().fit(net, as_dict, Y).transform(as_dict), scores)
    with pytest.raises(ValueError, match=r"cannot read these queries: expected rows like those of fit, \{'a': floats"):
        est.transform({"a": X[:, :1], "c": X[:, 1:2]})


def test_integer_codes():
    codes = RNG.randint(0, 7, size=(20, 5))
    net = trained(make_net(module=Embedded), codes, Y)
    scores = SourceAttribution().fit(net, codes, Y).transform(codes[:3])
    assert scores.shape == (3, 20)
    same(SourceAttribution().fit(net, codes, Y).transform(codes[:3].astype(float)), scores)
    assert SourceAttribution(make_net(module=Embedded), random_state=0).fit(codes, Y).transform(codes[:2]).any()
    with pytest.raises(ValueError, match="expected integers in X, as in fit, got float64 with fractions"):
        SourceAttribution().fit(net, codes, Y).transform(codes[:3] + 0.5)


def test_integers_are_numbers_to_a_linear_layer():
    counts = RNG.randint(0, 4, size=(20, 4))
    net = trained(make_net(), counts.astype(np.float32))
    scores = SourceAttribution().fit(net, counts.astype(np.float32), Y).transform(counts[:3])
    same(scores, SourceAttribution().fit(net, counts.astype(np.float32), Y).transform(counts[:3].astype(np.float32)))
    assert SourceAttribution(make_net(), random_state=0).fit(counts, counts[:, 0]).transform(counts).any()


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(2, 3), nn.Linear(3, 1)

    def forward(self, X):
        return self.out(self.inner(X).tanh().mean(1))


def test_sequences_of_another_length_are_read():
    series = RNG.normal(size=(20, 5, 2)).astype(np.float32)
    for convert in (np.asarray, torch.from_numpy):
        est = SourceAttribution().fit(trained(make_net(module=Pooled), series, Y), convert(series), Y)
        assert est.transform(convert(series[:2, :3])).shape == (2, 20)
        with pytest.raises(
            ValueError, match=r"cannot read these queries.*shape \(5, 2\), got floats of shape \(5, 1\)"
        ):
            est.transform(convert(series[:2, :, :1]))


def test_targets_of_one_dimension():
    squeezed = trained(make_net(NeuralNet, criterion=nn.MSELoss, module__squeeze=True), X, Y[:, 0])
    est = SourceAttribution(measurement="neg_loss").fit(squeezed, X, Y[:, 0])
    same(est.transform(QUERIES, Y[:5]), est.transform(QUERIES, Y[:5, 0]))
    column = SourceAttribution(measurement="neg_loss").fit(trained(make_net()), X, Y)
    same(column.transform(QUERIES, Y[:5, 0]), column.transform(QUERIES, Y[:5]))
    bare = make_net(NeuralNet, criterion=nn.MSELoss, module__squeeze=True)
    assert SourceAttribution(bare, random_state=0).fit(X, Y).net_.predict(X).shape == (20,)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float64, bool])
def test_labels_of_any_number_type(dtype):
    options = {"module__n_outputs": 2, "criterion": nn.CrossEntropyLoss}
    net = trained(make_net(NeuralNetClassifier, **options), X, LABELS)
    expected = SourceAttribution().fit(net, X, LABELS).transform(QUERIES)
    est = SourceAttribution().fit(net, X, LABELS.astype(dtype))
    same(est.transform(QUERIES), expected)
    same(est.transform(QUERIES, net.predict(QUERIES).astype(dtype)), expected)
    bare = SourceAttribution(make_net(NeuralNetClassifier, **options), random_state=0)
    assert bare.fit(X, LABELS.astype(dtype)).transform(QUERIES).any()


@pytest.mark.parametrize(
    "cls, options, y",
    [
        (NeuralNetBinaryClassifier, {}, LABELS),
        (NeuralNet, {"module__n_outputs": 2, "criterion": nn.CrossEntropyLoss}, LABELS),
        (NeuralNet, {"module__n_outputs": 3, "criterion": nn.MSELoss}, X[:, :3]),
    ],
)
def test_bare_nets_of_other_kinds(cls, options, y):
    several = options.get("module__n_outputs") == 3
    est = SourceAttribution(make_net(cls, **options), output=1 if several else None, random_state=0)
    assert est.fit(X.astype(np.float64), y).transform(QUERIES).any()


class Double(MLP):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.double()


def test_a_bare_net_in_float64():
    est = SourceAttribution(make_net(module=Double, module__hidden=(3,)), random_state=0).fit(X, Y)
    assert next(est.net_.module_.parameters()).dtype == torch.float64
    assert est.transform(QUERIES).dtype == np.float32


# --- randomness, failures, the user's objects -----------------------------------------------------------------------


def global_state():
    numpy_state = np.random.get_state()
    return torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2], random.getstate()


@pytest.mark.parametrize("random_state", [None, 0, np.random.RandomState(3)])
@pytest.mark.parametrize("door", ["net", "frozen", "bare"])
def test_global_randomness_is_left_alone(net, door, random_state):
    before = global_state()
    est = SourceAttribution(curvature=EKFAC(fisher="sampled"), random_state=random_state)
    if door == "net":
        est.fit(net, X, Y)
    else:
        est.set_params(net=FrozenEstimator(net) if door == "frozen" else make_net()).fit(X, Y)
    est.transform(QUERIES)
    assert global_state() == before


def test_seed_of_the_training():
    def weights(random_state):
        est = InfluenceFunctions(make_net(iterator_train__shuffle=True), random_state=random_state).fit(X, Y)
        return next(est.net_.module_.parameters()).detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
    assert not torch.equal(weights(None), weights(None))


def test_a_recorder_is_added_where_one_is_needed():
    bare = make_net(recorded=False)
    est = SourceAttribution(bare, n_segments=5, random_state=0).fit(X, Y)
    assert len(est.segments_) == 5
    assert bare.callbacks is None
    assert not bare.initialized_
    own = make_net(callbacks=[("mine", TrajectoryRecorder(n_checkpoints=4))])
    assert len(SourceAttribution(own, random_state=0).fit(X, Y).trajectory_.checkpoints) == 5
    disabled = make_net(callbacks="disable")
    assert TracIn(disabled, random_state=0).fit(X, Y).transform(QUERIES).any()


def test_a_trained_module_instance_is_not_trained_again():
    instance = trained(_instance_net())
    with pytest.raises(ValueError, match="module instance that is trained already.*FrozenEstimator"):
        SourceAttribution(instance).fit(X, Y)
    assert SourceAttribution(FrozenEstimator(instance)).fit(X, Y).transform(QUERIES).any()
    fresh = _instance_net()
    before = fresh.module.layers[0].weight.detach().clone()
    SourceAttribution(fresh).fit(X, Y)
    assert torch.equal(before, fresh.module.layers[0].weight)


def _instance_net():
    module = MLP(4, (3,))
    return NeuralNetRegressor(
        module,
        optimizer=torch.optim.SGD,
        lr=0.05,
        max_epochs=3,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder()],
    )


def test_a_failing_fit_changes_nothing(net, expected, monkeypatch):
    est = SourceAttribution()
    with pytest.raises(ValueError):
        est.fit(net, X[:-1], Y[:-1])
    assert set(vars(est)) == set(est.get_params())
    est.fit(net, X, Y)
    before = dict(vars(est))
    with pytest.raises(ValueError):
        est.set_params(n_segments=99).fit(net, X, Y)
    est.set_params(n_segments="auto")
    assert vars(est) == before

    def interrupted(self):
        self.damping_ = {}
        raise KeyboardInterrupt

    monkeypatch.setattr(SourceAttribution, "_fit_gradients", interrupted)
    with pytest.raises(KeyboardInterrupt):
        est.fit(net, X, Y)
    assert vars(est) == before
    same(est.transform(QUERIES), expected)


def test_held_out_rows_have_score_zero():
    """skorch's default keeps a fifth of the rows for validation."""
    from skorch.dataset import ValidSplit

    net = trained(make_net(train_split=ValidSplit(5)))
    for method in (SourceAttribution(), TracIn(), InfluenceFunctions()):
        with pytest.warns(UserWarning, match="4 of the 20 rows were held out.*their scores are 0"):
            scores = method.fit(net, X, Y).transform(QUERIES)
        assert (np.abs(scores).max(0) == 0).sum() == 4
    used = np.flatnonzero(np.abs(scores).max(0))
    same(SourceAttribution().fit(net, X[used], Y[used]).transform(QUERIES).shape, (5, 16))


def test_similarities_score_every_row(recwarn):
    from skorch.dataset import ValidSplit

    net = trained(make_net(train_split=ValidSplit(5)))
    scores = GradientSimilarity().fit(net, X, Y).transform(QUERIES)
    assert (np.abs(scores).max(0) > 0).all()
    assert not [w for w in recwarn if "held out" in str(w.message)]


# --- other processes and threads ------------------------------------------------------------------------------------


def test_pickle_of_fitted_estimators(net, expected):
    for est in (SourceAttribution().fit(net, X, Y), SourceAttribution(FrozenEstimator(net)).fit(X, Y)):
        restored = pickle.loads(pickle.dumps(est))
        same(restored.transform(QUERIES), expected)
        same(restored.fit(restored.net_, X, Y).transform(QUERIES), expected)  # the net came along, with its record
    bare = pickle.loads(pickle.dumps(SourceAttribution(make_net(), random_state=0)))
    assert bare.fit(X, Y).transform(QUERIES).any()


def test_threads_may_share_an_estimator(net, expected):
    est = SourceAttribution().fit(net, X, Y)
    results = [None] * 4

    def work(i):
        results[i] = [est.transform(QUERIES) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for scores in (score for result in results for score in result):
        same(scores, expected)


@pytest.mark.slow  # the next test sends more to processes, and pickles of importable modules are tested above
def test_joblib_processes(net, expected):
    est = SourceAttribution().fit(net, X, Y)
    parts = Parallel(n_jobs=2, backend="loky")(delayed(est.transform)(QUERIES[i:][:3]) for i in (0, 3))
    same(np.concatenate(parts), expected)


def test_joblib_with_a_module_of_main(tmp_path):
    """skorch pickles modules with plain pickle, which cannot carry a class of ``__main__`` to a worker."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import numpy as np, torch
        from joblib import Parallel, delayed
        from sklearn.frozen import FrozenEstimator
        from skorch import NeuralNetRegressor
        from sklearn_source import *

        class Mine(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)

            def forward(self, X):
                return self.second(self.first(X).tanh())

        class MyNet(NeuralNetRegressor):
            pass

        if __name__ == "__main__":
            torch.set_num_threads(1)
            X = np.random.RandomState(0).normal(size=(12, 2)).astype("float32")
            y = X[:, :1]
            net = MyNet(Mine, max_epochs=2, batch_size=4, train_split=None, verbose=0, optimizer=torch.optim.SGD,
                        callbacks=[TrajectoryRecorder()]).fit(X, y)
            source = SourceAttribution(n_segments=2, batch_size=3, measurement=lambda output, target: output[:, 0])
            for est in [source, InfluenceFunctions(), RepresentationSimilarity()]:
                for fitted in (est.fit(net, X, y), est.set_params(net=FrozenEstimator(net)).fit(X, y)):
                    here = fitted.transform(X)
                    there = Parallel(n_jobs=2, backend="loky")(delayed(fitted.transform)(X[i : i + 6]) for i in (0, 6))
                    assert np.allclose(np.concatenate(there), here, atol=1e-5 * abs(here).max())
            shared = source.set_params(n_jobs=2).fit(net, X, y).transform(X)
            assert np.allclose(shared, source.set_params(n_jobs=1).fit(net, X, y).transform(X), rtol=1e-4)
            refit = Parallel(n_jobs=2, backend="loky")(delayed(SourceAttribution(FrozenEstimator(net)).fit)(X, y)
                                                       for _ in range(2))
            print("scores agree", refit[1].transform(X).shape)
        """)
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(sklearn_source.__file__).parents[1])},
    )
    assert done.stdout.endswith("scores agree (12, 12)\n"), done.stderr[-3000:]


def test_a_parameter_in_the_place_of_the_network(net):
    """It would be left out without a word where fit is given the network."""
    with pytest.raises(TypeError, match="the first argument, .* got a EKFAC: .* pass parameters by name"):
        InfluenceFunctions(EKFAC(n_samples=1)).fit(net, X, Y)
