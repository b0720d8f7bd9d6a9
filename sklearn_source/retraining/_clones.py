"""Clones of a skorch net that train from a given seed on given batches, and leave everything else alone."""

from __future__ import annotations

import copy
import os
import tempfile
from collections import deque

import torch
from sklearn.base import clone
from skorch import NeuralNet, callbacks
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader

from ..network import refuse_module_instance, seeded_clone, train_to_the_end
from ..trajectory import TrajectoryRecorder
from ..utils._compat import FrozenEstimator
from ..utils._compat_skorch import is_predefined_split, set_training
from ..utils._warnings import warn

# They only report, or write files that retraining must not overwrite; BatchScoring and EpochScoring stay, as others may
# monitor what they note down.
DROPPED_CALLBACKS = (
    TrajectoryRecorder, callbacks.PrintLog, callbacks.ProgressBar, callbacks.TrainEndCheckpoint, callbacks.TensorBoard,
    callbacks.NeptuneLogger, callbacks.WandbLogger, callbacks.SacredLogger, callbacks.MlflowLogger,
)  # fmt: skip


def template_of(net):
    """An unfitted clone of a net, ready to be cloned and trained many times. The net itself is only read.

    Parameters
    ----------
    net : skorch.NeuralNet
        Trained or not; a frozen one is opened.

    Returns
    -------
    template : skorch.NeuralNet

    Raises
    ------
    TypeError
        If it is no skorch net.
    ValueError
        If it holds a module instance, loads its initial weights, or draws its training rows by a sampler.
    """
    net = net.estimator if isinstance(net, FrozenEstimator) else net
    if isinstance(net, type) or not isinstance(net, NeuralNet):
        came = f"the class {net.__name__}" if isinstance(net, type) else f"a {type(net).__name__}"
        raise TypeError(
            f"expected the network as a skorch NeuralNet, got {came}: pass an instance of one, fitted or not"
        )
    refuse_module_instance(
        net, ", so that every retraining would start from the same weights, trained ones if it was fitted"
    )
    options = net.get_params_for("iterator_train")
    drawn = [name for name in ("sampler", "batch_sampler") if options.get(name) is not None]
    if drawn:
        raise ValueError(
            f"expected a net that shuffles its training rows or takes them in order, got iterator_train__{drawn[0]}, "
            "which knows the rows of one data set only: give the net iterator_train__shuffle=True, or no shuffling"
        )
    if not (isinstance(net.iterator_train, type) and issubclass(net.iterator_train, DataLoader)):
        raise ValueError(
            "expected iterator_train to be torch.utils.data.DataLoader or a subclass, which takes the batches of a "
            f"retraining by batch_sampler, got {net.iterator_train!r}: leave it out, or derive it from DataLoader"
        )
    template = copy.copy(net)
    if net.callbacks not in (None, "disable"):
        template.callbacks = [entry for entry in net.callbacks if not _is_dropped(entry)]
    template = clone(template)  # what is dropped need not be possible to copy
    template.verbose = 0
    if _holds_rows_out(template.train_split):
        warn(
            "train_split takes rows away from training; retraining uses all rows of a subset "
            "instead (train_split=None)",
        )
        template.train_split = None
    return template


def _is_dropped(entry):
    """Whether an entry of ``callbacks`` is left out; ValueError for one that sets the initial weights."""
    callback = entry[1] if isinstance(entry, tuple) else entry
    kind = callback if isinstance(callback, type) else type(callback)
    if issubclass(kind, callbacks.LoadInitState):
        raise ValueError(
            "expected callbacks that leave the initial weights alone, got LoadInitState, which would start every "
            "retraining from the same weights, trained ones perhaps: leave it out of the net that is retrained"
        )
    if issubclass(kind, callbacks.Checkpoint):
        return not getattr(callback, "load_best", False)
    return issubclass(kind, DROPPED_CALLBACKS)


def _holds_rows_out(split):
    """Whether a ``train_split`` trains on fewer rows; skorch's ``predefined_split`` does not."""
    if split is None or split is False:
        return False
    return not is_predefined_split(split)


def initialized(template):
    """A clone with some weights and with its callbacks, which are not to make files; lazy layers still have none."""
    with seeded_clone(template, 0) as net, tempfile.TemporaryDirectory() as folder:
        _redirect_checkpoints(net, folder)
        return net.initialize()


def initialize(net, x):
    """Give a clone its initial weights, inside a seeded context: both engines draw the same ones.

    Parameters
    ----------
    net : skorch.NeuralNet
    x : a few rows, for modules that learn their shapes from a batch
    """
    net.initialize()
    materialize(net, x)


def materialize(net, x):
    """Let lazy layers take their shapes, and draw their weights, from a few rows."""
    if any(is_lazy(p) for p in [*net.module_.parameters(), *net.module_.buffers()]):
        set_training(net, False)
        with torch.no_grad():
            net.infer(x)


def start(template, x, unit):
    """A unit's network before its training, without callbacks."""
    with seeded_clone(template, unit.seed) as net:
        net.callbacks = "disable"
        initialize(net, x)
    return net


class _PlannedBatches:
    """The batch sampler of one training: the batches of the next epoch each time it is iterated over."""

    def __init__(self, plan, unit):
        self.epochs = [plan.batches(unit, epoch) for epoch in range(plan.n_epochs)]
        self.epoch = 0
        self.shares = deque()  # share of its rows left in each batch that is drawn and not trained on yet
        self.share = 1.0  # that of the batch being trained on

    def __iter__(self):
        batches = self.epochs[self.epoch]
        self.epoch += 1
        for rows, n_dealt in batches:
            self.shares.append(len(rows) / n_dealt)
            yield rows.tolist()

    def __len__(self):
        return len(self.epochs[min(self.epoch, len(self.epochs) - 1)])


def train(template, X, y, x_few, unit, plan, *, renormalize=True):
    """Train a clone on the batches of a unit, as skorch does it.

    Parameters
    ----------
    template : from :func:`template_of`
    X, y : what ``net.fit`` takes
    x_few : a few rows as tensors
    unit : Unit
    plan : BatchPlan
    renormalize : bool
        Whether the loss of a batch that lost rows is the mean over those left; else over those dealt.

    Returns
    -------
    net : skorch.NeuralNet
        The trained clone.
    """
    with seeded_clone(template, unit.seed) as net, tempfile.TemporaryDirectory() as folder:
        sampler = _PlannedBatches(plan, unit)
        dealt = {"batch_sampler": sampler, "batch_size": 1, "shuffle": False, "drop_last": False}
        net.set_params(**{f"iterator_train__{name}": value for name, value in dealt.items()})
        net.max_epochs = plan.n_epochs
        if not renormalize:
            net = _scale_loss(net, sampler)
        _redirect_checkpoints(net, folder)
        initialize(net, x_few)
        try:
            train_to_the_end(net.partial_fit, X, y)
            net.__class__ = type(template)
        except KeyError as error:
            raise ValueError(
                f"expected callbacks that need no validation rows, got one that looks for {error} in the history, "
                "which a training without validation rows does not have: give the net validation rows of its own "
                "(train_split=predefined_split(dataset)) or monitor train_loss"
            ) from error
    return net


def _redirect_checkpoints(net, folder):
    """Point checkpoints that are loaded at the end to a folder of this training alone."""
    if net.callbacks in (None, "disable"):
        return
    own = []
    for entry in net.callbacks:
        callback = entry[1] if isinstance(entry, tuple) else entry
        if isinstance(callback, callbacks.Checkpoint):
            callback = copy.copy(callback)
            names = {k: os.path.basename(v) for k, v in vars(callback).items() if k[:2] == "f_" and isinstance(v, str)}
            vars(callback).update(names, dirname=folder, fn_prefix="", f_pickle=None)
        own.append((entry[0], callback) if isinstance(entry, tuple) else callback)
    net.callbacks = own


def _scale_loss(net, sampler):
    """The same net with the loss of a batch divided by the rows dealt, not by those left."""

    class Scaled(type(net)):
        def train_step(self, batch, **fit_params):
            sampler.share = sampler.shares.popleft()
            return super().train_step(batch, **fit_params)

        def get_loss(self, y_pred, y_true, X=None, training=False):
            loss = super().get_loss(y_pred, y_true, X=X, training=training)
            return loss * sampler.share if training else loss

    net.__class__ = Scaled
    return net
