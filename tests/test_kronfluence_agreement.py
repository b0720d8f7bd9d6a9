"""Influence functions with EK-FAC against kronfluence, another implementation of the same method.

What it is handed and what it gives back: the training loss is *summed* over the batch, so that its per-row gradients
are those of the row losses; its score is ``<(H + damping)^-1 grad f_q, grad l_m>`` for the measurement f_q as returned,
with no sign and no 1/N, so ``tau = -score / N``. Its ``damping_factor=None`` is a tenth of the mean eigenvalue of each
layer, as our ``"auto"``; its default, 1e-8, divides rounding errors by next to nothing and is no number to agree on.
"""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_source import InfluenceFunctions
from sklearn_source.curvature import EKFAC

pytest.importorskip("kronfluence", reason="an optional peer: pip install kronfluence==1.0.1")


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.embed(x))).mean(1)


CASES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)), (10,)),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, bias=False), nn.ReLU(), nn.Flatten(),
            nn.Linear(72, 4),
        ),
        (2, 8, 8),
    ),
    "tokens": (Tokens, (5, 6)),
}  # fmt: skip


def log_odds(logits, y):
    chosen = nn.functional.one_hot(y, logits.shape[1]).bool()
    return logits[chosen] - logits.masked_fill(chosen, -torch.inf).logsumexp(1)


def peer_scores(module, layers, X, y, X_query, y_query, damping, directory):
    """The peer's pairwise scores (n_query, n_train) and self scores (n_train,), as it gives them."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Classification(Task):
        def compute_train_loss(self, batch, model, sample=False):
            assert not sample
            return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")

        def compute_measurement(self, batch, model):
            return log_odds(model(batch[0]), batch[1]).sum()

        def get_influence_tracked_modules(self):
            return layers

    logging.getLogger("kronfluence").setLevel(logging.ERROR)
    task = Classification()
    model = prepare_model(copy.deepcopy(module).eval(), task)
    analyzer = Analyzer("agreement", model, task, cpu=True, disable_tqdm=True, output_dir=str(directory))
    train = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    query = torch.utils.data.TensorDataset(torch.from_numpy(X_query), torch.from_numpy(y_query))
    factors = FactorArguments(
        strategy="ekfac", use_empirical_fisher=True, covariance_max_examples=None, lambda_max_examples=None
    )
    analyzer.fit_all_factors("f", train, per_device_batch_size=16, factor_args=factors)
    arguments = ScoreArguments(damping_factor=damping)
    analyzer.compute_pairwise_scores(
        "pairs", "f", query_dataset=query, train_dataset=train, per_device_query_batch_size=8,
        per_device_train_batch_size=16, score_args=arguments,
    )  # fmt: skip
    analyzer.compute_self_scores("self", "f", train_dataset=train, per_device_train_batch_size=16, score_args=arguments)
    pairs, own = analyzer.load_pairwise_scores("pairs"), analyzer.load_self_scores("self")
    return pairs["all_modules"].double().numpy(), own["all_modules"].double().numpy()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("damping", [None, 0.01])
def test_influence_functions_agree_with_kronfluence(name, damping, tmp_path, record_property):
    make, shape = CASES[name]
    rng = np.random.default_rng(0)
    X, X_query = (rng.normal(size=(n, *shape)).astype(np.float32) for n in (96, 12))
    y, y_query = rng.integers(4, size=96), rng.integers(4, size=12)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        make(), criterion=nn.CrossEntropyLoss, optimizer__momentum=0.9, lr=0.02, batch_size=16, max_epochs=5,
        train_split=None, verbose=0,
    ).fit(X, y)  # fmt: skip
    layers = [k for k, m in net.module_.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    pairs, own = peer_scores(net.module_, layers, X, y, X_query, y_query, damping, tmp_path)
    damping = "mean_eigenvalue" if damping is None else damping
    method = InfluenceFunctions(curvature=EKFAC(fisher="empirical", coupling=None), damping=damping)
    method.fit(net, X, y)
    found, self_found = method.transform(X_query, y_query), method.self_influence()
    errors = {
        "pairs": float(np.linalg.norm(found + pairs / 96) / np.linalg.norm(pairs / 96)),
        "self": float(np.linalg.norm(self_found - own / 96) / np.linalg.norm(own / 96)),
        "largest": float(np.abs(found + pairs / 96).max() / np.abs(pairs / 96).max()),
    }
    for key, value in errors.items():
        record_property(key, value)
    assert max(errors.values()) < 1e-3, errors
