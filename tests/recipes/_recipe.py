"""A training recipe: what a user writes around a small network, and what the package is expected to make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, SourceAttribution, TracIn

N_ROWS, N_FEATURES = 24, 3
DECAY = 0.1

# Method: its estimator, and the training that it is asked about (a first-order method small steps, influence functions a
# converged one), where a recipe does not say otherwise.
METHODS = {
    "SOURCE": (lambda: SourceAttribution(n_segments=6, curvature="exact"), {}),
    "EK-FAC": (lambda: SourceAttribution(n_segments=6, curvature="ekfac"), {}),
    "TracIn": (lambda: TracIn(), {}),
    "Influence": (
        lambda: InfluenceFunctions(curvature="exact", damping=DECAY),
        {"max_epochs": 120, "lr": 0.2, "batch_size": N_ROWS, "optimizer__weight_decay": DECAY},
    ),
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
    """One linear layer: EK-FAC is the matrix itself."""

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


def regression():
    """Targets not far from where the MLP starts, so that the Gauss-Newton matrix is its Hessian but for a percent."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_ROWS, N_FEATURES))
    return X, START(X) + np.sin(X[:, :1]) / 2 + X[:, 1:2] / 4 + 0.15 * rng.normal(size=(N_ROWS, 1))


def classes():
    X, y = regression()
    return X, np.digitize(y[:, 0], np.quantile(y, [0.3, 0.6]))


QUERIES = np.random.default_rng(2).normal(size=(6, N_FEATURES))


@dataclass(frozen=True, eq=False)
class Recipe:
    """One row of the matrix.

    ``expect``: what may come of it, of "right", "warned" and "refused", joined by "or". ``says``: a regular expression
    that the warning or refusal matches. ``today``: why it is not so yet. ``before`` and ``after``: callbacks to the left
    and right of the recorder, made anew for each training. ``fit``: ``fit(net, X, y)``, trains. ``credited``: what
    ``fit`` of the method is given, ``(X, y)`` and keywords. ``options``: of the net.
    """

    name: str
    expect: str = "right"
    says: str = ""
    today: str = ""
    methods: tuple[str, ...] = ("SOURCE",)
    net: type = NeuralNetRegressor
    module: type = MLP
    data: Callable = regression
    before: tuple = ()
    after: tuple = ()
    fit: Callable = lambda net, X, y: net.fit(X, y)
    stage: Callable | None = None
    skip: str = ""
    tolerance: float = 0.05
    eps: float = 1e-4
    options: dict = field(default_factory=dict)

    def rows(self):
        return self.data()

    def queries(self):
        return QUERIES

    @property
    def optimizer(self):
        return self.options.get("optimizer", torch.optim.SGD).__name__

    def train(self, method, callback, *last):
        """A net trained from the same start on the same batches each time, with one more callback (and those after all)."""
        torch.manual_seed(0)
        settings = {
            "optimizer": torch.optim.SGD,
            "lr": 0.02,
            "batch_size": 8,
            "max_epochs": 30,
            "iterator_train__shuffle": True,
            "train_split": None,
            "verbose": 0,
            # Nothing is printed, and most of skorch's time is here.
            **dict.fromkeys(
                ["callbacks__print_log", "callbacks__epoch_timer", "callbacks__train_loss", "callbacks__valid_loss"]
            ),
            **METHODS[method][1],
            **self.options,
        }
        if method == "TracIn":
            settings["lr"] /= 200
        if self.net is NeuralNetClassifier or issubclass(self.net, NeuralNetClassifier):
            settings = {"criterion": nn.CrossEntropyLoss, "module__n_outputs": 3, "callbacks__valid_acc": None, **settings}
        callbacks = [*(make() for make in self.before), callback, *(make() for make in self.after), *last]
        net = self.net(self.module, callbacks=callbacks, **settings)
        return self.fit(net, *self.rows()) or net

    def measure(self, net):
        """The measurement of every query, as the user computes it: the output, or log-odds of the likeliest class."""
        with torch.no_grad():
            output = net.forward(QUERIES)
        output = (output[0] if isinstance(output, tuple) else output).double()
        if output.shape[1] == 1:
            return output[:, 0].numpy()
        top = output.argmax(dim=1, keepdim=True)
        others = output.scatter(1, top, -torch.inf).logsumexp(dim=1)
        return (output.gather(1, top)[:, 0] - others).numpy()

    def attribute(self, estimator, net):
        X, y = self.rows()
        options = {} if self.stage is None else {"stage": self.stage()}
        return estimator.fit(net, X, y, **options)


def recipe(name, expect="right", says="", today="", **settings):
    """A Recipe; what is none of its fields is an option of the net."""
    fields = {key: settings.pop(key) for key in list(settings) if key in Recipe.__dataclass_fields__}
    return Recipe(name, expect, says, today, options=settings, **fields)
