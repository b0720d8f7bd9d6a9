"""Drawing without a screen; every test leaves matplotlib as it found it."""

from __future__ import annotations

import matplotlib
import pytest

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def plt():
    import matplotlib.pyplot as plt

    before, open_before = dict(matplotlib.rcParams), plt.get_fignums()
    yield plt
    plt.close("all")
    assert dict(matplotlib.rcParams) == before
    assert open_before == []


@pytest.fixture(scope="session")
def fitted():
    """SOURCE of a small regression trained in 24 steps, with its rows."""
    import numpy as np
    import torch

    from sklearn_source import SourceAttribution
    from tests._nets import make_net

    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 3)).astype(np.float32)
    y = (X[:, :1] - 2 * X[:, 1:2]).astype(np.float32)
    torch.manual_seed(0)
    net = make_net(iterator_train__shuffle=True).fit(X, y)
    return SourceAttribution(n_segments=3).fit(net, X, y), net, X, y


@pytest.fixture(scope="session")
def digits():
    """SOURCE of a classifier of digits, with its rows, and digits that it has not seen."""
    import numpy as np
    import torch
    from sklearn.datasets import load_digits
    from skorch import NeuralNetClassifier

    from sklearn_source import SourceAttribution
    from tests._nets import make_net

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    torch.manual_seed(0)
    net = make_net(
        NeuralNetClassifier,
        criterion=torch.nn.CrossEntropyLoss,
        module__hidden=(16,),
        module__n_outputs=10,
        batch_size=50,
        lr=0.2,
    ).fit(X[:300], y[:300])
    return SourceAttribution(n_segments=2).fit(net, X[:300], y[:300]), X[:300], y[:300], X[300:320], y[300:320]
