"""Which method, and which basis of EK-FAC, to believe on a transformer: the linear datamodeling score on questions.

A transformer of one block (embedding, attention, layer norm) learns to tell what 400 questions ask for; 60 random
halves of them, retrained five times each, are the truth, and 60 other questions the queries.


    python benchmarks/lds_questions.py --recipe adamw
    python benchmarks/lds_questions.py --recipe sgd
"""

from __future__ import annotations

import functools

import torch
from _lds import Methods, Problem, run
from skorch import NeuralNetClassifier

from sklearn_source import GradientSimilarity, InfluenceFunctions, SourceAttribution, TracIn, TrajectoryRecorder
from sklearn_source.datasets import TextClassifier, TextEncoder, load_questions

RECIPES = {
    "adamw": {"optimizer": torch.optim.AdamW, "lr": 2e-3, "optimizer__weight_decay": 1e-2},
    "sgd": {"optimizer": torch.optim.SGD, "lr": 0.05, "optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-3},
}
N_TRAIN, N_QUERY = 400, 60


def make_problem(recipe: str) -> Problem:
    """Return the first questions of the excerpt, and the net of a recipe."""
    train, test = load_questions(), load_questions(subset="test")
    encoder = TextEncoder(lowercase=True, min_count=2, shapes=True, max_length=16)
    X_train = encoder.fit_transform(train.data[:N_TRAIN])

    def make_net(n_checkpoints: int | None) -> NeuralNetClassifier:
        recorder = None if n_checkpoints is None else [TrajectoryRecorder(n_checkpoints=n_checkpoints)]
        return NeuralNetClassifier(
            TextClassifier, module__n_tokens=encoder.n_tokens_, module__n_classes=len(train.target_names),
            module__max_length=X_train.shape[1], module__width=32, module__n_blocks=1,
            criterion=torch.nn.CrossEntropyLoss, batch_size=32, max_epochs=12, train_split=None, verbose=0,
            iterator_train__shuffle=True, callbacks=recorder, **RECIPES[recipe],
        )  # fmt: skip

    X_query = encoder.transform(test.data[:N_QUERY])
    return Problem(recipe, X_train, train.target[:N_TRAIN], X_query, test.target[:N_QUERY], make_net)


def all_methods(recipe: str) -> Methods:
    """Return SOURCE and influence functions with both bases, and the methods without curvature."""
    methods: Methods = {
        "gradient similarity, cosine": (6, GradientSimilarity),
        "TracIn": (6, TracIn),
    }
    for basis in ("kfac", "shampoo"):
        methods[f"influence functions, {basis} basis"] = (6, lambda b=basis: InfluenceFunctions(basis=b))
    if recipe == "adamw":
        methods["SOURCE"] = (6, SourceAttribution)
        methods["SOURCE, adam = paper"] = (6, lambda: SourceAttribution(adam="paper"))
    else:
        for basis in ("kfac", "shampoo"):
            methods[f"SOURCE, {basis} basis"] = (6, lambda b=basis: SourceAttribution(basis=b))
    return methods


if __name__ == "__main__":
    problems = {recipe: functools.partial(make_problem, recipe) for recipe in RECIPES}
    run(__doc__, "lds_questions", problems, {"all": all_methods}, n_subsets=60, n_repeats=5)
