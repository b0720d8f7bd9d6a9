"""On a CUDA device everything gives the scores of the CPU. Run with ``pytest -m gpu`` on a machine that has one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_source import GradientSimilarity, InfluenceFunctions, SourceAttribution, TracIn, TrajectoryRecorder
from sklearn_source.curvature import EKFAC

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def _module():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


SGD = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.02}
ADAMW = {"optimizer": torch.optim.AdamW, "optimizer__weight_decay": 0.1, "lr": 0.005}


def _trained(device, optimizer):
    """The same training on either device: float64, so that both end at the same weights."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(48, 2, 6, 6))
    y = rng.integers(3, size=48)
    torch.manual_seed(0)
    initial = {name: value.double() for name, value in _module().state_dict().items()}

    def build():
        module = _module().double()
        module.load_state_dict(initial)
        return module

    net = NeuralNetClassifier(
        build,
        criterion=nn.CrossEntropyLoss,
        batch_size=16,
        max_epochs=6,
        iterator_train__shuffle=False,
        train_split=None,
        verbose=0,
        device=device,
        callbacks=[TrajectoryRecorder(n_checkpoints=4)],
        **optimizer,
    )
    return net.fit(X, y), X, y


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize(
    "estimator",
    [
        SourceAttribution(n_segments=2),
        SourceAttribution(n_segments=1, curvature="exact"),
        SourceAttribution(n_segments=2, adam="paper", curvature=EKFAC(basis="shampoo")),
        SourceAttribution(n_segments=2, curvature=EKFAC(fisher="sampled"), random_state=0, averaging="parameters"),
        InfluenceFunctions(),
        InfluenceFunctions(solver="cg", cg_max_iter=20),
        TracIn(),
        GradientSimilarity(),
    ],
    ids=["source", "exact", "paper", "fast-sampled", "influence", "cg", "tracin", "gradient"],
)
def test_same_scores_as_on_the_cpu(estimator, optimizer):
    scores = {}
    for device in ("cpu", "cuda"):
        net, X, y = _trained(device, optimizer)
        estimator.fit(net, X, y)
        assert next(iter(net.module_.parameters())).device.type == device
        scores[device] = estimator.transform(X[:5]), estimator.self_influence()
    for on_cpu, on_cuda in zip(scores["cpu"], scores["cuda"]):
        np.testing.assert_allclose(on_cuda, on_cpu, rtol=1e-4, atol=1e-6 * np.abs(on_cpu).max())
