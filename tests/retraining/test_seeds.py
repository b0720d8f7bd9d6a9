"""One integer decides everything, and nothing else does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import parallel_config
from skorch import NeuralNetRegressor
from torch import nn

import sklearn_source
from sklearn_source.retraining import leave_one_out, retrain_on_subsets
from tests.retraining._problems import N_FEATURES, classifier, make_net, rows

SMALL = {"n_subsets": 5, "n_repeats": 2, "random_state": 1}


def retrain(net=None, **options):
    X, y, X_query = rows()
    return retrain_on_subsets(net or make_net(), X, y, X_query, **{**SMALL, **options})


@pytest.fixture(scope="module")
def reference():
    return retrain(engine="vectorized")


@pytest.mark.parametrize("chunk_size", [1, 3, 7])
def test_chunks_change_nothing(reference, chunk_size):
    found = retrain(engine="vectorized", chunk_size=chunk_size)
    np.testing.assert_array_equal(found.masks, reference.masks)
    np.testing.assert_allclose(found.outputs, reference.outputs, atol=1e-6)


def test_threads_change_nothing(reference):
    one = retrain(engine="joblib")
    np.testing.assert_allclose(one.outputs, reference.outputs, atol=1e-5)
    with parallel_config("threading", n_jobs=3):
        np.testing.assert_array_equal(retrain(engine="joblib").outputs, one.outputs)
        np.testing.assert_allclose(retrain(engine="vectorized", chunk_size=2).outputs, reference.outputs, atol=1e-6)


def test_more_begins_with_the_same(reference):
    more = retrain(n_subsets=7, n_repeats=3)
    np.testing.assert_array_equal(more.masks[:5], reference.masks)
    np.testing.assert_array_equal(more.seeds[:5, :2], reference.seeds)
    np.testing.assert_allclose(more.outputs[:5, :2], reference.outputs, atol=1e-6)


def test_subsets_repeats_and_seeds_are_all_different(reference):
    assert len(np.unique(reference.seeds)) == 10
    assert len({mask.tobytes() for mask in reference.masks}) == 5
    assert (reference.masks.sum(1) == 22).all()
    other = retrain(random_state=2)
    assert not np.intersect1d(other.seeds, reference.seeds).size
    assert not np.array_equal(other.masks, reference.masks)
    flat = reference.outputs.reshape(10, -1)
    assert np.abs(flat[:, None] - flat[None])[~np.eye(10, dtype=bool)].max(-1).min() > 1e-3


def test_random_states(reference):
    np.testing.assert_array_equal(retrain(random_state=np.int64(1)).outputs, retrain(random_state=1).outputs)
    one, two = (retrain(random_state=np.random.RandomState(5)).outputs for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("engine", ["vectorized", "joblib"])
def test_nothing_of_the_user_is_touched(engine):
    X, y, X_query = rows()
    net = make_net().fit(X, y)
    arrays = [a.copy() for a in (X, y, X_query)]
    before = {name: value.clone() for name, value in net.module_.state_dict().items()}
    params, n_epochs, training = str(net.get_params(deep=False)), len(net.history), net.module_.training
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    leave_one_out(net, X, y, X_query, rows=[0, 5], random_state=0, engine=engine)
    retrain_on_subsets(net, X, y, X_query, **SMALL, engine=engine)
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert (str(net.get_params(deep=False)), len(net.history), net.module_.training) == (params, n_epochs, training)
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, before[name])
    for mine, copy in zip((X, y, X_query), arrays):
        np.testing.assert_array_equal(mine, copy)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(N_FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, X):
        return self.layers(X)


def test_random_layers_are_seeded():
    net = NeuralNetRegressor(Dropping, train_split=None, verbose=0, max_epochs=2)
    one, two, other = (retrain(net, random_state=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.outputs, two.outputs)
    assert not np.allclose(one.outputs, other.outputs, atol=1e-2)


def test_labels_default_to_what_a_trained_net_predicts():
    X, y, X_query = rows("classes")
    net = classifier()
    with pytest.raises(ValueError, match="one fixed label per query"):
        retrain_on_subsets(net, X, y, X_query, **SMALL)
    net.fit(X, y)
    labels = net.predict(X_query)
    found = retrain_on_subsets(net, X, y, X_query, **SMALL)
    expected = retrain_on_subsets(net, X, y, X_query, labels, **SMALL)
    assert (found.settings["query_labels"], expected.settings["query_labels"]) == ("predicted", "given")
    assert found.measurement == "log_odds"
    np.testing.assert_array_equal(found.outputs, expected.outputs)


def test_processes_change_nothing_and_are_reached_by_a_module_of_main(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np, torch
            from skorch import NeuralNetRegressor
            from sklearn_source.retraining import retrain_on_subsets

            class Net(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    self.out = torch.nn.Linear(3, 1)

                def forward(self, X):
                    return self.out(X)

            class Own(NeuralNetRegressor):
                pass

            def measure(output, target):
                return output[:, 0] ** 2

            if __name__ == "__main__":
                rng = np.random.default_rng(0)
                X, y = rng.normal(size=(20, 3)).astype("f4"), rng.normal(size=(20, 1)).astype("f4")
                net = Own(Net, train_split=None, verbose=0, max_epochs=2).fit(X, y)
                options = {"n_subsets": 4, "n_repeats": 1, "random_state": 0, "measurement": measure}
                one = [retrain_on_subsets(net, X, y, X, engine=e, chunk_size=2, n_jobs=n, **options).outputs
                       for e in ("joblib", "vectorized") for n in (1, 2)]
                assert all(np.allclose(one[0], o, atol=1e-6) for o in one)
                print("same", one[0].shape)
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(sklearn_source.__file__).parents[1])}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "same (4, 1, 20)" in done.stdout, done.stderr
