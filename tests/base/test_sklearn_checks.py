"""scikit-learn's own checks on every method, which trains the net it holds (the third way in)."""

from __future__ import annotations

import torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch import NeuralNetClassifier, NeuralNetRegressor

from sklearn_source import InfluenceFunctions, SourceAttribution
from sklearn_source.curvature import EKFAC
from sklearn_source.modules import MLP
from tests._methods import METHODS


class FiveClasses(MLP):
    """skorch keeps the names of parameters set through it in a set, which names the tests: one name, one order."""

    def __init__(self, hidden=(4,)):
        super().__init__(hidden=hidden, n_outputs=5)


# The checks' tables differ in width: the module reads it from its first batch.
OPTIONS = {
    "module__hidden": (4,),
    "optimizer": torch.optim.SGD,
    "lr": 0.01,
    "max_epochs": 2,
    "batch_size": 32,
    "train_split": None,
    "verbose": 0,
}
REGRESSOR = NeuralNetRegressor(MLP, **OPTIONS)
CLASSIFIER = NeuralNetClassifier(FiveClasses, criterion=torch.nn.CrossEntropyLoss, **OPTIONS)


@parametrize_with_checks(
    [method(REGRESSOR) for method in METHODS]
    + [SourceAttribution(CLASSIFIER), InfluenceFunctions(REGRESSOR, curvature=EKFAC(coupling="krylov", n_iter=2))]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
