"""Which method, and which basis of EK-FAC, to believe on a language model: the linear datamodeling score on plays.

A causal transformer of one block learns 240 short speeches character by character; 40 random halves of them, retrained
three times each, are the truth, and what is asked is the log-likelihood of 40 other speeches.

    python benchmarks/lds_plays.py --recipe adamw
    python benchmarks/lds_plays.py --recipe sgd
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from _lds import Problem, run
from lds_questions import all_methods
from skorch import NeuralNet

from sklearn_source import TrajectoryRecorder
from sklearn_source.datasets import CharTransformer, TextEncoder, load_plays, next_tokens

RECIPES = {
    "adamw": {"optimizer": torch.optim.AdamW, "lr": 4e-3, "optimizer__weight_decay": 1e-2},
    "sgd": {"optimizer": torch.optim.SGD, "lr": 0.1, "optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-4},
}
N_TRAIN, N_QUERY, LENGTH = 240, 40, 64


def make_problem(recipe: str) -> Problem:
    """Return short speeches, every seventh of them a query, and the net of a recipe."""
    plays = load_plays(max_length=LENGTH)
    texts = np.asarray(plays.data)[: (N_TRAIN + N_QUERY) * 2 : 2]
    encoder = TextEncoder("char", edges=True)
    X, y = next_tokens(encoder.fit_transform(texts))
    asked = np.arange(len(texts)) % 7 == 0

    def make_net(n_checkpoints: int | None) -> NeuralNet:
        recorder = None if n_checkpoints is None else [TrajectoryRecorder(n_checkpoints=n_checkpoints)]
        return NeuralNet(
            CharTransformer, module__n_tokens=encoder.n_tokens_, module__max_length=X.shape[1], module__width=32,
            module__n_blocks=1, criterion=torch.nn.CrossEntropyLoss, criterion__ignore_index=-100, batch_size=16,
            max_epochs=10, train_split=None, verbose=0, iterator_train__shuffle=True, callbacks=recorder,
            **RECIPES[recipe],
        )  # fmt: skip

    return Problem(recipe, X[~asked], y[~asked], X[asked], y[asked], make_net, "neg_loss")


if __name__ == "__main__":
    problems = {recipe: functools.partial(make_problem, recipe) for recipe in RECIPES}
    run(__doc__, "lds_plays", problems, {"all": all_methods}, n_subsets=40, n_repeats=3)
