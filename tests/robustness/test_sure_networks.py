"""Influence functions of networks whose probabilities are 0 and 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier

from sklearn_source import InfluenceFunctions
from sklearn_source.utils._random import seeded
from tests._nets import make_net

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
KINDS = {
    "classes": lambda: make_net(
        NeuralNetClassifier, module__n_outputs=2, criterion=torch.nn.CrossEntropyLoss, max_epochs=20
    ),
    "binary": lambda: make_net(NeuralNetBinaryClassifier, module__squeeze=True, max_epochs=20),
}


def sure(kind, factor):
    """A trained classifier whose logits are so many times larger."""
    y = (X[:, 0] > 0).astype(np.int64 if kind == "classes" else np.float32)
    with seeded(0):
        net = KINDS[kind]().fit(X, y)
    with torch.no_grad():
        for p in list(net.module_.parameters())[-2:]:
            p.mul_(factor)
    return net, y


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("curvature", ["ekfac", "exact", "diagonal"])
def test_no_numbers_of_rounding(kind, curvature):
    net, y = sure(kind, 1e5)
    given = {"curvature": curvature, "random_state": 0}
    with pytest.raises(ValueError, match=r"so sure of its classes|zero in every direction"):
        InfluenceFunctions(damping="mean_eigenvalue", **given).fit(net, X, y)
    scores = InfluenceFunctions(damping=0.1, **given).fit(net, X, y).transform(X[:3])
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("kind", list(KINDS))
def test_networks_that_doubt_some_rows_are_served(kind):
    net, y = sure(kind, 5.0)
    scores = InfluenceFunctions(damping="mean_eigenvalue", random_state=0).fit(net, X, y).transform(X[:3])
    assert np.isfinite(scores).all()
    assert np.abs(scores).max() > 0
