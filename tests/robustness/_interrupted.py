"""Networks whose training is interrupted at a chosen forward pass, and what the package trains of them."""

from __future__ import annotations

import contextlib
import signal

import numpy as np
from skorch.callbacks import Callback, EarlyStopping

from sklearn_source import InfluenceFunctions, LoRAEnsemble, SourceAttribution, TracIn
from sklearn_source.modules import MLP
from sklearn_source.retraining import leave_one_out, retrain_on_subsets, retrain_without
from sklearn_source.utils._random import seeded
from tests._nets import make_net

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(24, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)


class Plan:
    """When the interrupt comes: at which forward pass, and how."""

    left, how = -1, "signal"

    @classmethod
    def step(cls):
        cls.left -= 1
        if cls.left == 0:
            if cls.how == "raise":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)


class Interruptible(MLP):
    def forward(self, X):
        Plan.step()
        return super().forward(X)


class SignalsInside(Callback):
    """A Ctrl-C while a callback runs: no decision of the callback."""

    def on_batch_end(self, net, training=False, **kwargs):
        Plan.step()


def _handler(signum, frame):
    raise KeyboardInterrupt


@contextlib.contextmanager
def interrupt_at(number, how):
    """Interrupt the forward pass ``number`` from now on; yields a function: whether it came."""
    Plan.left, Plan.how = number, how
    before = signal.signal(signal.SIGINT, _handler if how == "handler" else signal.default_int_handler)
    try:
        yield lambda: Plan.left <= 0
    finally:
        Plan.left = -1
        signal.signal(signal.SIGINT, before)


def net(place="module", **options):
    module = Interruptible if place == "module" else MLP
    callbacks = [] if place == "module" else [("signals", SignalsInside())]
    return make_net(module=module, module__hidden=(4,), **{"callbacks": callbacks, "max_epochs": 4, **options})


def stopping(**options):
    """A net that a callback of its own ends before its time."""
    early = EarlyStopping(monitor="train_loss", patience=1, threshold=10.0)
    return net(callbacks=[("early", early)], max_epochs=30, **options)


def starters(place, folder=None):
    """Name -> a function that has the package train: every way there is. ``folder`` is the cache of retraining."""
    common = {"random_state": 0, "engine": "joblib", "cache": folder}
    with seeded(0):
        trained = net(callbacks=None).fit(X, y)
    return {
        "subsets": lambda: retrain_on_subsets(
            net(place), X, y, X[:3], n_subsets=3, n_repeats=1, **common
        ).outputs,
        "one out": lambda: leave_one_out(net(place), X, y, X[:3], rows=[0, 1], **common).outputs,
        "without, weights kept": lambda: retrain_without(
            net(place), X, y, X[:3], removed={"a": [0, 5]}, renormalize=False, **common
        ).outputs,
        "bare SOURCE": lambda: SourceAttribution(net(place), n_segments=2, random_state=0).fit(X, y).transform(X[:3]),
        "bare TracIn": lambda: TracIn(net(place), random_state=0).fit(X, y).transform(X[:3]),
        "bare influence": lambda: InfluenceFunctions(net(place), random_state=0).fit(X, y).transform(X[:3]),
        "adapters": lambda: LoRAEnsemble(n_members=2, n_steps=8, random_state=0).fit(trained, X, y).transform(X[:3]),
    }  # fmt: skip
