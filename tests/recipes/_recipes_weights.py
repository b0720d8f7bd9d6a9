"""Recipes that edit weights beside the optimizer's steps, and trainings of several parts."""

from __future__ import annotations

import tempfile

import torch
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, LoadInitState, PassthroughScoring

from ._recipe import Line, recipe
from ._row_weights import RowWeights


class Edit(Callback):
    """Edit the weights at every batch's or epoch's end, or at the end of training."""

    def __init__(self, edit, every="batch"):
        self.edit = edit
        self.every = every

    def _run(self, net):
        with torch.no_grad():
            self.edit(net.module_)

    def on_batch_end(self, net, training=False, **kwargs):
        if self.every == "batch" and training:
            self._run(net)

    def on_epoch_end(self, net, **kwargs):
        if self.every == "epoch":
            self._run(net)


def clamp(module):
    for value in module.parameters():
        value.clamp_(-0.15, 0.15)


def clamp_far(module):
    for value in module.parameters():
        value.clamp_(-100, 100)


def max_norm(module):
    for value in module.parameters():
        value.copy_(value.renorm(2, 0, 0.25) if value.ndim > 1 else value)


def decay(module):
    for value in module.parameters():
        value.mul_(0.99)


def decay_epoch(module):
    for value in module.parameters():
        value.mul_(0.97)


def jitter(module):
    for value in module.parameters():
        value.add_(torch.randn_like(value), alpha=0.01)


class Average(Callback):
    """A moving average of the weights, put in at the end (or at every epoch's)."""

    def __init__(self, rate=0.9, every="train"):
        self.rate = rate
        self.every = every

    def on_train_begin(self, net, **kwargs):
        self.mean_ = [value.detach().clone() for value in net.module_.parameters()]

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            for mean, value in zip(self.mean_, net.module_.parameters()):
                mean.mul_(self.rate).add_(value.detach(), alpha=1 - self.rate)

    def _put(self, net):
        with torch.no_grad():
            for mean, value in zip(self.mean_, net.module_.parameters()):
                value.copy_(mean)

    def on_epoch_end(self, net, **kwargs):
        if self.every == "epoch":
            self._put(net)

    def on_train_end(self, net, **kwargs):
        if self.every == "train":
            self._put(net)


class StochasticAverage(Callback):
    """The mean of the weights at the ends of the last epochs (SWA), put in at the end."""

    def on_train_begin(self, net, **kwargs):
        self.averaged_ = None

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) > 15:
            if self.averaged_ is None:
                self.averaged_ = torch.optim.swa_utils.AveragedModel(net.module_)
            self.averaged_.update_parameters(net.module_)

    def on_train_end(self, net, **kwargs):
        net.module_.load_state_dict(self.averaged_.module.state_dict())
        self.averaged_ = None


class HalfWay(Callback):
    """Lookahead as a callback: every fifth batch goes half of the way."""

    def on_train_begin(self, net, **kwargs):
        self.slow_ = [value.detach().clone() for value in net.module_.parameters()]
        self.count_ = 0

    def on_batch_end(self, net, training=False, **kwargs):
        self.count_ += 1
        if self.count_ % 5 == 0:
            with torch.no_grad():
                for slow, value in zip(self.slow_, net.module_.parameters()):
                    slow.lerp_(value, 0.5)
                    value.copy_(slow)


def stream(net, X, y):
    """Two halves of the rows, one after the other."""
    net.set_params(batch_size=6)
    net.fit(X[:12], y[:12])
    return net.partial_fit(X[12:], y[12:])


def twice(net, X, y):
    net.fit(X, y)
    return net.partial_fit(X, y)


def lower_rate(net, X, y):
    net.fit(X, y)
    net.set_params(optimizer__lr=0.004)
    return net.partial_fit(X, y)


def resumed(net, X, y):
    """The second half of a training in another process: its recorder sees nothing of the first."""
    with tempfile.TemporaryDirectory() as path:
        checkpoint = Checkpoint(monitor=None, dirname=path)
        rows = [c for c in net.callbacks if isinstance(c, RowWeights)]  # rows weigh in both halves
        type(net)(**{**net.get_params(deep=False), "callbacks": [checkpoint, *rows]}).fit(X, y)
        net.callbacks = [*net.callbacks, LoadInitState(checkpoint)]
        return net.fit(X, y)


def loaded(net, X, y):
    """A training that begins at another's weights, loaded by hand: what those owe to rows is not asked."""
    first = type(net)(**{**net.get_params(deep=False), "callbacks": None}).fit(X, y)
    net.initialize()
    net.module_.load_state_dict(first.module_.state_dict())
    return net.partial_fit(X, y)


def edits(edit, every="batch"):
    return (lambda: Edit(edit, every),)


WORD = "weights"
WHERE = "refused or warned"
stopping = {
    "callbacks__train_loss": PassthroughScoring("train_loss", on_train=True),
    "lr": 0.03,
}

RECIPES = [
    recipe("clamped after each batch, before the recorder", WHERE, WORD, module=Line, before=edits(clamp)),
    recipe("clamped after each batch, after the recorder", WHERE, WORD, module=Line, after=edits(clamp)),
    recipe(
        "clamped, other methods",
        WHERE,
        WORD,
        module=Line,
        after=edits(clamp),
        methods=("EK-FAC", "Influence"),
    ),
    recipe("clamped far away", after=edits(clamp_far)),
    recipe("max-norm per epoch, before the recorder", WHERE, WORD, before=edits(max_norm, "epoch")),
    recipe("max-norm per epoch, after the recorder", WHERE, WORD, after=edits(max_norm, "epoch")),
    recipe("decay by hand per batch", WHERE, WORD, before=edits(decay)),
    recipe("decay by hand per batch, after the recorder", WHERE, WORD, after=edits(decay)),
    recipe("decay by hand per epoch", WHERE, WORD, after=edits(decay_epoch, "epoch")),
    recipe("noise on weights", "right or refused or warned", WORD, after=edits(jitter)),
    recipe("EMA put in before the recorder", WHERE, WORD, before=(Average,)),
    recipe("EMA put in after the recorder", WHERE, WORD, after=(Average,)),
    recipe("EMA put in at every epoch", WHERE, WORD, before=(lambda: Average(0.9, "epoch"),)),
    recipe("SWA before the recorder", WHERE, WORD, before=(StochasticAverage,)),
    recipe("SWA after the recorder", WHERE, WORD, after=(StochasticAverage,)),
    recipe("lookahead by a callback", WHERE, WORD, before=(HalfWay,)),
    recipe(
        "early stopping, weights restored",
        after=(lambda: EarlyStopping("train_loss", patience=3, load_best=True),),
        **stopping,
    ),
    recipe(
        "early stopping, restored before the recorder",
        before=(lambda: EarlyStopping("train_loss", patience=3, load_best=True),),
        **stopping,
    ),
    recipe(
        "resumed from a Checkpoint",
        WHERE,
        "history|resum|record",
        fit=resumed,
        callbacks__train_loss=PassthroughScoring("train_loss", on_train=True),
    ),
    recipe("begun from loaded weights", fit=loaded),
    recipe("stream of partial_fit", fit=stream, lr=0.01, stage=(0,) * 12 + (1,) * 12, methods=("SOURCE", "TracIn")),
    recipe("fit and partial_fit", fit=twice),
    recipe("rate lowered between stages", fit=lower_rate),
]
