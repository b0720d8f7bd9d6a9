"""What the recorded rates cannot tell of a training is said, and nothing is said of an even one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import GradientNormClipping
from skorch.dataset import Dataset
from torch import nn

from sklearn_source import SourceAttribution, TracIn, TrajectoryRecorder


class Changing(Dataset):
    """Rows that no fingerprint knows."""

    def transform(self, X, y):
        return super().transform(X + 1e-3 * np.random.randn(*X.shape).astype("float32"), y)


def _fit(estimator, n_rows=20, callbacks=(), **options):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 2)).astype("float32")
    y = X[:, :1]
    net = NeuralNetRegressor(
        nn.Linear,
        module__in_features=2,
        module__out_features=1,
        optimizer=torch.optim.SGD,
        max_epochs=6,
        batch_size=8,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(), *callbacks],
        **options,
    ).fit(X, y)
    return estimator.fit(net, X, y)


@pytest.mark.parametrize("estimator", [SourceAttribution(), TracIn()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"iterator_train__sampler": torch.utils.data.RandomSampler(range(20)), "dataset": Changing}, "recognised"),
        ({"iterator_train__shuffle": True, "callbacks": [GradientNormClipping(0.1)]}, "GradientNormClipping"),
    ],
    ids=["sampler", "clipping"],
)
def test_unequal_rows_and_steps_are_said(estimator, options, said):
    with pytest.warns(UserWarning, match=said):
        _fit(estimator, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"iterator_train__shuffle": True},
        {"n_rows": 24},
        {"n_rows": 7},
        {"iterator_train__shuffle": True, "callbacks": [GradientNormClipping(None)]},
    ],
    ids=["shuffled", "divided", "one batch", "no clipping"],
)
def test_even_trainings_pass_in_silence(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        _fit(SourceAttribution(), **options)


@pytest.mark.parametrize("estimator", [SourceAttribution(), TracIn()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    ("options", "never"),
    [
        ({}, 20),
        ({"iterator_train__drop_last": True}, 16),
        ({"iterator_train__sampler": torch.utils.data.SubsetRandomSampler(range(10))}, 10),
    ],
    ids=["last batch", "drop_last", "sampler"],
)
def test_credit_follows_draws(estimator, options, never):
    """Rows that no batch held score 0; without shuffling those of a smaller last batch weigh as much more."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fitted = _fit(estimator, **options)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 2)).astype("float32")
    scores = fitted.transform(X)
    assert (scores[:, never:] == 0).all()
    assert (np.abs(scores[:, :never]).max(axis=0) > 0).all()
    weights = fitted._row_weights(0, 0, fitted.trajectory_.n_steps)
    assert weights.mean() == pytest.approx(1)
    if not options:
        np.testing.assert_allclose(weights[16:] / weights[0], 2)
