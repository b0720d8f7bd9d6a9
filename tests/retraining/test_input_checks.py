"""What retraining takes and refuses, before any work."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Checkpoint, EarlyStopping, EpochScoring, LoadInitState, TensorBoard
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import DataLoader, WeightedRandomSampler

from sklearn_source import TrajectoryRecorder
from sklearn_source.modules import MLP
from sklearn_source.retraining import leave_one_out, retrain_on_subsets
from sklearn_source.utils._compat import FrozenEstimator
from tests.retraining._problems import N_FEATURES, classifier, make_net, rows

SMALL = {"n_subsets": 3, "n_repeats": 1, "random_state": 0}


def retrain(net, kind="regression", **options):
    X, y, X_query = rows(kind)
    return retrain_on_subsets(net, X, y, X_query, **{**SMALL, **options})


def test_module_instances_are_refused():
    for net in (NeuralNetRegressor(MLP(N_FEATURES)), NeuralNetRegressor(MLP(N_FEATURES)).initialize()):
        with pytest.raises(ValueError, match="holds a module instance"):
            retrain(net)


@pytest.mark.parametrize("net", [MLP, NeuralNetRegressor, MLP(N_FEATURES), None])
def test_other_things_are_refused(net):
    with pytest.raises(TypeError, match="expected the network as a skorch NeuralNet"):
        retrain(net)


def test_samplers_are_refused():
    sampler = WeightedRandomSampler(np.ones(45), 45)
    with pytest.raises(ValueError, match="iterator_train__sampler"):
        retrain(make_net(iterator_train__sampler=sampler, iterator_train__shuffle=False))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_subsets": 0}, "n_subsets"),
        ({"n_repeats": 1.5}, "n_repeats"),
        ({"subset_size": 1.0}, "subset_size"),
        ({"subset_size": 45}, "subset_size"),
        ({"subset_size": 0.001}, "subset_size"),
        ({"engine": "fast"}, "expected engine to be one of"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"subsets": np.ones((2, 44), dtype=bool)}, "expected subsets as booleans"),
        ({"subsets": np.zeros((2, 45), dtype=bool)}, "none of them empty"),
        ({"measurement": "log_odds"}, "needs a classifier"),
        ({"measurement": "neg_loss"}, "expected the targets of the queries, which .* needs"),
        ({"measurement": "prediction", "output": 3}, "output="),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        retrain(make_net(), **options)


def test_rows_that_cannot_be_read():
    X, y, X_query = rows()
    with pytest.raises(ValueError, match="NaN"):
        retrain_on_subsets(make_net(), np.where(X > 2, np.nan, X), y, X_query, **SMALL)
    with pytest.raises(ValueError, match="as many targets as rows"):
        retrain_on_subsets(make_net(), X, y[:-1], X_query, **SMALL)
    with pytest.raises(ValueError, match="broadcast"):
        retrain_on_subsets(make_net(), X, y[:, 0], X_query, **SMALL)
    with pytest.raises(ValueError, match="indices from 0 to 44"):
        leave_one_out(make_net(), X, y, X_query, rows=[45])


def test_subset_sizes():
    assert (retrain(make_net(), subset_size=0.9).masks.sum(1) == 40).all()
    assert (retrain(make_net(), subset_size=3).masks.sum(1) == 3).all()


def test_arrays_of_another_precision_and_frames_are_read():
    X, y, X_query = rows()
    expected = retrain(make_net())
    wide = retrain_on_subsets(make_net(), X.astype(float), y.astype(float), X_query.astype(float), **SMALL)
    np.testing.assert_array_equal(wide.outputs, expected.outputs)
    tensors = retrain_on_subsets(
        make_net(), torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(X_query), **SMALL
    )
    np.testing.assert_allclose(tensors.outputs, expected.outputs, atol=1e-6)
    dataset = retrain_on_subsets(make_net(), Dataset(X, y), None, X_query, **SMALL)
    np.testing.assert_allclose(dataset.outputs, expected.outputs, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_rows_are_read_as_the_methods_read_them():
    """Lists, frames with columns of any name, whole numbers among fractions, columns and labels of other kinds."""
    X, y, X_query = rows()
    expected = retrain(make_net()).outputs
    for wrap in (
        lambda a: a.tolist(),
        pd.DataFrame,
        lambda a: pd.DataFrame(a, columns=[f"x{j}" for j in range(len(a.T))]),
    ):
        found = retrain_on_subsets(make_net(), wrap(X), wrap(y), wrap(X_query), **SMALL)
        np.testing.assert_allclose(found.outputs, expected, atol=1e-6)
    named = retrain_on_subsets(make_net(), {"X": X}, y, X_query, **SMALL)
    np.testing.assert_array_equal(named.outputs, expected)
    whole = np.round(4 * X_query)
    one, other = (retrain_on_subsets(make_net(), X, y, q, **SMALL) for q in (whole, whole.astype(int)))
    np.testing.assert_array_equal(one.outputs, other.outputs)
    y_query = y[: len(X_query)]
    one, other = (
        retrain_on_subsets(make_net(), X, y, X_query, q, measurement="neg_loss", **SMALL)
        for q in (y_query, y_query[:, 0])
    )
    np.testing.assert_array_equal(one.outputs, other.outputs)
    X, y, X_query = rows("classes")
    labels = [
        retrain_on_subsets(classifier(), X, wrap(y), X_query, wrap(y[: len(X_query)]), **SMALL).outputs
        for wrap in (np.asarray, list, pd.Series, lambda a: a.astype(np.int32), lambda a: a.astype(float))
    ]
    for other in labels[1:]:
        np.testing.assert_array_equal(other, labels[0])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"X_query": None}, "expected X_query"),
        (
            {"X_query": np.zeros((6, 3), np.float32)},
            "expected rows like those of fit, floats of shape .4,., got floats",
        ),
        ({"X_query": np.zeros(6, np.float32)}, "another number of axes"),
        ({"X_train": np.zeros((45, 4), int)}, "the network cannot read X, integers of shape .4,. per row"),
        ({"y_train": np.full(45, 3)}, r"expected labels in 0..2 .the network has 3 outputs., got 3"),
        ({"y_train": np.full(45, "three")}, "encode labels as integers"),
    ],
)
def test_rows_that_the_network_cannot_take(change, message):
    X, y, X_query = rows("classes")
    call = {"X_train": X, "y_train": y, "X_query": X_query, "y_query": y[: len(X_query)], **change}
    with pytest.raises(ValueError, match=message):
        retrain_on_subsets(classifier(), **call, **SMALL)


def test_subsets_that_make_no_batch():
    with pytest.raises(ValueError, match="at least one batch of 30 .*, got 22"):
        retrain(make_net(batch_size=30, iterator_train__drop_last=True))


def test_a_batch_of_one_row_under_batch_normalisation():
    def module():
        return nn.Sequential(nn.Linear(N_FEATURES, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))

    for engine in ("auto", "joblib"):
        with pytest.raises(ValueError, match="got 22 rows, of which a batch of a single one is left"):
            retrain(make_net(module=module, batch_size=7), engine=engine)


class Columns(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2, 1)

    def forward(self, age, weight):
        return self.out(torch.cat([age, weight], dim=1))


@pytest.mark.parametrize("engine", ["vectorized", "joblib"])
def test_several_inputs(engine):
    X, y, X_query = rows()
    frames = [{"age": a[:, :1], "weight": a[:, 1:2]} for a in (X, X_query)]
    found = retrain_on_subsets(make_net(module=Columns), frames[0], y, frames[1], engine=engine, **SMALL)
    assert found.outputs.shape == (3, 1, len(X_query))
    table = pd.DataFrame({"age": X[:, 0], "weight": X[:, 1]})
    same = retrain_on_subsets(make_net(module=Columns), table, y, frames[1], engine=engine, **SMALL)
    np.testing.assert_allclose(same.outputs, found.outputs, atol=1e-6)


def test_frozen_and_trained_nets_give_the_same_as_untrained_ones():
    X, y, _ = rows()
    trained = make_net(callbacks=[TrajectoryRecorder()]).fit(X, y)
    expected = retrain(make_net())
    for net in (trained, FrozenEstimator(trained)):
        np.testing.assert_array_equal(retrain(net).outputs, expected.outputs)


def test_a_train_split_is_left_out_with_a_warning():
    with pytest.warns(UserWarning, match="train_split takes rows away"):
        found = retrain(make_net(train_split=ValidSplit(5)))
    np.testing.assert_array_equal(found.outputs, retrain(make_net()).outputs)


@pytest.mark.filterwarnings("error")
def test_validation_rows_of_its_own_are_kept():
    X, y, _ = rows()
    split = predefined_split(Dataset(X[:10], y[:10]))
    net = make_net(train_split=split, callbacks=[EarlyStopping(patience=1, threshold=10.0)], max_epochs=9)
    found = retrain(net)
    assert found.settings["engine"] == "joblib"
    expected = retrain(make_net(max_epochs=2))  # it stops at once
    np.testing.assert_allclose(found.outputs, expected.outputs, atol=1e-5)
    with pytest.raises(ValueError, match="without validation rows"):
        retrain(make_net(callbacks=[EarlyStopping()]))


def test_checkpoints_do_not_touch_the_user_files(tmp_path):
    X, y, _ = rows()
    split = predefined_split(Dataset(X[:10], y[:10]))
    for load_best in (False, True):
        for place in (
            {"dirname": str(tmp_path / "own")},
            {"fn_prefix": str(tmp_path / "own_"), "f_pickle": "all.pkl"},
            {f"f_{part}": str(tmp_path / part) for part in ("params", "optimizer", "criterion", "history", "pickle")},
        ):
            checkpoint = Checkpoint(load_best=load_best, **place)
            retrain(make_net(train_split=split, callbacks=[("best", checkpoint)]))
    assert not list(tmp_path.iterdir())


class Writer:
    def __getattr__(self, name):
        raise AssertionError(f"{name} was asked of it")

    def __deepcopy__(self, memo):
        raise TypeError("a connection cannot be copied")


def test_nothing_is_logged():
    net = make_net(callbacks=[TensorBoard(Writer()), ("named", TensorBoard(Writer()))])
    np.testing.assert_array_equal(retrain(net).outputs, retrain(make_net()).outputs)
    assert len(net.callbacks) == 2


def test_loaded_initial_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="LoadInitState, which would start every retraining from the same weights"):
        retrain(make_net(callbacks=[LoadInitState(Checkpoint(dirname=str(tmp_path)))]))


@pytest.mark.parametrize("named", [True, False])
def test_the_best_weights_are_loaded_where_a_checkpoint_does(named):
    checkpoint = Checkpoint(monitor=lambda net: len(net.history) == 2, load_best=True)
    found = retrain(make_net(callbacks=[("best", checkpoint) if named else checkpoint]))
    assert "Checkpoint may change" in found.settings["engine_reason"]
    np.testing.assert_allclose(found.outputs, retrain(make_net(max_epochs=2)).outputs, atol=1e-5)


def test_measurements():
    X, y, X_query = rows("classes")
    y_query = y[: len(X_query)]
    net = classifier()
    prediction = retrain_on_subsets(net, X, y, X_query, measurement="prediction", output=1, **SMALL)
    odds, loss = (retrain_on_subsets(net, X, y, X_query, y_query, measurement=m, **SMALL) for m in ("auto", "neg_loss"))
    assert (prediction.measurement, odds.measurement, loss.measurement) == ("prediction", "log_odds", "neg_loss")

    def logits(output, target):
        return output.gather(1, target[:, None])[:, 0] - output.logsumexp(1)

    own = retrain_on_subsets(net, X, y, X_query, y_query, measurement=logits, **SMALL)
    assert own.measurement == "logits"
    np.testing.assert_allclose(own.outputs, loss.outputs, atol=1e-5)
    p = np.exp(loss.outputs.astype(float))
    np.testing.assert_allclose(odds.outputs, np.log(p) - np.log1p(-p), atol=1e-4)


def test_diverged_networks_are_named():
    with pytest.warns(UserWarning, match="training diverged"):
        found = retrain(make_net(lr=1e6))
    assert not np.isfinite(found.outputs).all()
    assert found.settings["engine"] == "vectorized"


def test_scoring_callbacks_stay():
    net = make_net(NeuralNetClassifier, module__n_outputs=3, module__softmax=True, callbacks=[EpochScoring("accuracy")])
    X, y, X_query = rows("classes")
    found = retrain_on_subsets(net, X, y, X_query, y[: len(X_query)], **SMALL)
    assert found.settings["engine"] == "vectorized"


def test_verbose_says_which_engine_and_why(capfd):
    retrain(make_net(), verbose=1)
    assert "vectorized engine: a trial of it gave what skorch gives" in capfd.readouterr().err
    retrain(make_net())
    out, err = capfd.readouterr()
    assert out == err == ""


def test_queries_in_a_stream_are_refused():
    X, y, X_query = rows("regression")
    with pytest.raises(TypeError, match="expected X_query as arrays.*got a stream, DataLoader: read its rows"):
        retrain_on_subsets(make_net(), X, y, DataLoader([X_query], batch_size=None), **SMALL)
