"""One budget for the memory of intermediate results."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import sklearn_source
from sklearn_source import SourceAttribution, config_context, get_config, set_config
from sklearn_source.inspection import group_influence
from sklearn_source.retraining._engines import together
from sklearn_source.utils._config import DEFAULT_BYTES, bytes_for
from tests._nets import make_net

GIB = 2**30


@pytest.fixture(autouse=True)
def defaults():
    yield
    set_config(memory_budget=2 * GIB)


def test_the_defaults_are_those_documented():
    assert get_config() == {"memory_budget": 2 * GIB}
    assert {purpose: bytes_for(purpose) for purpose in DEFAULT_BYTES} == DEFAULT_BYTES
    assert bytes_for("query_vectors") == get_config()["memory_budget"]
    assert bytes_for("dense_gradients") == GIB // 2
    assert bytes_for("batch") == GIB // 8
    assert bytes_for("scores") // 8 == 1 << 24
    assert bytes_for("weighed_outputs") // 4 == 1 << 22
    assert bytes_for("resamples") // 8 == 4_000_000


def test_settings_change_and_are_put_back():
    with config_context(memory_budget=GIB):
        assert bytes_for("dense_gradients") == GIB // 4
        with config_context():
            assert get_config()["memory_budget"] == GIB
            set_config(memory_budget=3 * GIB)
        assert get_config()["memory_budget"] == GIB
    set_config(memory_budget=5)
    assert get_config()["memory_budget"] == 5
    set_config()
    assert get_config()["memory_budget"] == 5


def test_an_error_puts_settings_back():
    with pytest.raises(KeyError), config_context(memory_budget=GIB):
        raise KeyError
    assert get_config()["memory_budget"] == 2 * GIB


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, "2GB"])
def test_no_budgets(budget):
    with pytest.raises(ValueError, match="expected memory_budget to be an integer >= 1, got"):
        set_config(memory_budget=budget)
    with pytest.raises(ValueError, match="expected memory_budget"), config_context(memory_budget=budget):
        pass
    assert get_config()["memory_budget"] == 2 * GIB


def test_what_is_returned_is_a_copy():
    get_config()["memory_budget"] = 1
    assert get_config()["memory_budget"] == 2 * GIB


def test_other_threads_have_the_defaults():
    seen = []
    with config_context(memory_budget=GIB):
        thread = threading.Thread(target=lambda: seen.append(get_config()["memory_budget"]))
        thread.start()
        thread.join()
    assert seen == [2 * GIB]


def test_a_small_budget_cuts_the_work_and_leaves_the_scores():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, 3)).astype(np.float32), rng.normal(size=(24, 1)).astype(np.float32)
    net = make_net().fit(X, y)
    expected = SourceAttribution().fit(net, X, y)
    with config_context(memory_budget=10_000):
        method = SourceAttribution().fit(net, X, y)
        assert method._gradients.batch_size < expected._gradients.batch_size
        assert method._queries_at_once() < len(X)
        scores = method.transform(X)
        sums = group_influence(method, X, {"all": np.arange(24)}).influence
    assert method._queries_at_once() > len(X)
    np.testing.assert_allclose(scores, expected.transform(X), rtol=1e-4, atol=1e-6 * np.abs(scores).max())
    np.testing.assert_allclose(sums[:, 0], scores.sum(axis=1), rtol=1e-4, atol=1e-5)


def test_networks_retrained_together():
    class OnGpu:
        device = torch.device("cuda")

        def parameters(self):
            return {"weight": torch.empty(2**20)}

    class OnCpu(OnGpu):
        device = torch.device("cpu")

    assert together(OnGpu()) == 2 * GIB // 2**24
    assert together(OnCpu()) == 1
    with config_context(memory_budget=GIB // 2):
        assert together(OnGpu()) == GIB // 2 // 2**24


def test_the_settings_are_public():
    assert {"config_context", "get_config", "set_config"} <= set(sklearn_source.__all__)
