"""A training recipe: what a user writes around a small network, and what the package is expected to make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, SourceAttribution, TracIn
from sklearn_source.curvature import EKFAC

N_ROWS, N_FEATURES = 24, 3
DECAY = 0.1

# What a method is asked about, where a recipe does not say otherwise: a training of some length, one of steps so small
# that the first order is all, one that converged.
TRAININGS = {
    "plain": {},
    "short": {"max_epochs": 10},
    "converged": {"max_epochs": 120, "lr": 0.2, "batch_size": N_ROWS, "optimizer__weight_decay": DECAY},
}
SHORTER = 200

METHODS = {
    "SOURCE": ("plain", lambda: SourceAttribution(n_segments=6, curvature="exact")),
    "EK-FAC": ("plain", lambda: SourceAttribution(n_segments=6, curvature="ekfac")),
    "Krylov": ("plain", lambda: SourceAttribution(n_segments=6, curvature=EKFAC(coupling="krylov"))),
    "TracIn": ("short", lambda: TracIn()),
    "Influence": ("converged", lambda: InfluenceFunctions(curvature="exact", damping=0.0)),
}


class MLP(nn.Module):
    """Three features, eight hidden units."""

    def __init__(self, n_outputs=1, n_hidden=8):
        super().__init__()
        self.hidden = nn.Linear(N_FEATURES, n_hidden, dtype=torch.float64)
        self.head = nn.Linear(n_hidden, n_outputs, dtype=torch.float64)

    def forward(self, X):
        return self.head(torch.tanh(self.hidden(X)))


class Line(nn.Module):
    """One linear layer: EK-FAC is the matrix itself, and the Gauss-Newton matrix the Hessian."""

    def __init__(self, n_outputs=1):
        super().__init__()
        self.head = nn.Linear(N_FEATURES, n_outputs, dtype=torch.float64)

    def forward(self, X):
        return self.head(X)


def _start():
    """What the untrained MLP says."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MLP()
    return lambda X: module(torch.as_tensor(X)).detach().numpy()


START = _start()
QUERIES = np.random.default_rng(2).normal(size=(6, N_FEATURES))


def regression():
    """Targets not far from where the MLP starts, so that the Gauss-Newton matrix is its Hessian but for a percent."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_ROWS, N_FEATURES))
    return X, START(X) + np.sin(X[:, :1]) / 2 + X[:, 1:2] / 4 + 0.15 * rng.normal(size=(N_ROWS, 1))


def classes():
    """Three classes."""
    X, y = regression()
    return X, np.digitize(y[:, 0], np.quantile(y, [0.3, 0.6]))


@dataclass(frozen=True, eq=False)
class Recipe:
    """One row of the matrix.

    Attributes
    ----------
    name : str
    expect : str
        What may come of it: "right", "warned" and "refused", joined by "or".
    says : str
        A regular expression that the warning or the refusal matches, case aside.
    methods : tuple of str
        Those asked, of ``METHODS``.
    net, module : type
    data : callable
        Gives X and y.
    before, after : tuple of callables
        Callbacks to the left and right of the recorder, made anew for each training.
    fit : callable
        ``fit(net, X, y)`` trains, and returns the trained net.
    stage : array-like, optional
        Which stage each row belongs to.
    n_checkpoints : int, optional
        None: every step is recorded.
    tolerance : float
        The largest relative error that is right.
    eps : float
        Step of the finite differences.
    skip : str
        Why it cannot be tried here.
    options : dict
        Of the net.
    """

    name: str
    expect: str = "right"
    says: str = ""
    methods: tuple[str, ...] = ("SOURCE",)
    net: type = NeuralNetRegressor
    module: type = MLP
    data: Callable = regression
    before: tuple = ()
    after: tuple = ()
    fit: Callable = lambda net, X, y: net.fit(X, y)
    stage: tuple[int, ...] | None = None
    n_checkpoints: int | None = 12
    tolerance: float = 0.05
    eps: float = 1e-4
    skip: str = ""
    options: dict = field(default_factory=dict)

    @property
    def optimizer(self):
        return self.options.get("optimizer", torch.optim.SGD).__name__

    def train(self, training, callback, *last):
        """A net trained from the same start on the same batches every time, with a callback where the recorder stands.

        ``last``: callbacks behind all others.
        """
        torch.manual_seed(0)
        settings = {
            "optimizer": torch.optim.SGD,
            "lr": 0.02,
            "batch_size": 8,
            "max_epochs": 20,
            "iterator_train__shuffle": True,
            "train_split": None,
            "verbose": 0,
            **{f"callbacks__{name}": None for name in ("print_log", "epoch_timer", "train_loss", "valid_loss")},  # slow
            **TRAININGS[training],
            **self.options,
        }
        if training == "short":
            settings["lr"] /= SHORTER
        if issubclass(self.net, NeuralNetClassifier):
            settings = {
                "criterion": nn.CrossEntropyLoss,
                "module__n_outputs": 3,
                "callbacks__valid_acc": None,
                **settings,
            }
        made = [*(make() for make in self.before), callback, *(make() for make in self.after), *last]
        return self.fit(self.net(self.module, callbacks=made, **settings), *self.data())

    def measure(self, net):
        """The measurement of every query, as a user computes it: the output, or the log-odds of the likeliest class."""
        with torch.no_grad():
            output = net.forward(QUERIES.astype(self.data()[0].dtype)).double()
        if output.shape[1] == 1:
            return output[:, 0].numpy()
        top = output.argmax(dim=1, keepdim=True)
        others = output.scatter(1, top, -torch.inf).logsumexp(dim=1)
        return (output.gather(1, top)[:, 0] - others).numpy()

    def scores(self, estimator, net):
        X, y = self.data()
        options = {} if self.stage is None else {"stage": np.array(self.stage)}
        return estimator.fit(net, X, y, **options).transform(QUERIES.astype(X.dtype))


def recipe(name, expect="right", says="", **settings):
    """A Recipe; what is none of its fields is an option of the net."""
    fields = {key: settings.pop(key) for key in list(settings) if key in Recipe.__dataclass_fields__}
    return Recipe(name, expect, says, options=settings, **fields)
