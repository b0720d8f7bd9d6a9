"""The two ways to train networks as ``net.fit`` does: skorch one after the other, or many at once."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.base import clone
from skorch import callbacks

from ..network import Network, PortableNet, train_clone
from ..rows import Rows, count_rows, rows_after_split, take_rows
from ..stochastic import draws_examples
from ..trajectory import recorder_in
from ..utils._digest import digest
from ._clones import initialized
from ._engines import N_TRIAL, together, why_trial_differs
from ._loader_plan import LoaderPlan
from ._recorded_training import RecordedTraining, is_plain
from ._stacked import StackedTrainer
from ._task import few_rows
from ._training_state import training_state
from ._vectorizable import replayable, why_not_faster, why_not_vectorized

# They write files, or to a server, which a training at once would not.
_WRITING = (
    callbacks.Checkpoint, callbacks.TensorBoard, callbacks.NeptuneLogger, callbacks.WandbLogger, callbacks.SacredLogger,
    callbacks.MlflowLogger,
)  # fmt: skip


class LoopEngine:
    """skorch trains one network after the other. Can be pickled.

    Parameters
    ----------
    template : skorch.NeuralNet
        Unfitted, with its recorder.
    X, y
        As it is trained on them.
    keep : bool
        Give what a training left in a form that can be kept, where it is nothing but weights and a record.
    """

    name, chunk_size, pads = "joblib", 1, False

    def __init__(self, template, X, y, keep=False):
        self.template, self.X, self.y, self.keep = template, X, y, keep

    def train(self, unit, plan=None):
        """The trained net of a unit."""
        return train_clone(self.template, self.X, self.y, seed=unit.seed)[0]

    def __call__(self, units):
        """The network of each unit, as a PortableNet or a RecordedTraining."""
        nets = [self.train(unit) for unit in units]
        return [RecordedTraining.of(net) if self._can_keep(net) else PortableNet(net) for net in nets]

    def _can_keep(self, net):
        if not self.keep:
            return False
        start = initialized(self.template)
        if draws_examples(start):  # the seed of the draws is no weight and no record
            return False
        few_rows(start, self.X, self.y)  # lazy layers become what they are in training
        return is_plain(training_state(start), net)


class AtOnceEngine:
    """Networks trained together, stacked. Can be pickled.

    Parameters
    ----------
    task : FitTask
    chunk_size : int or None
        Networks trained together.
    """

    name, pads = "vectorized", False

    def __init__(self, task, chunk_size=None):
        self.task, self.chunk_size = task, chunk_size

    def _trainer(self):
        task = self.task
        x, y = task.rows.batch(slice(None))
        return StackedTrainer(task.template, task.network, x, y, name=task.name)

    def states(self, units, plan):
        """Trained (parameters, buffers) of each unit."""
        return self._trainer().train(units, plan)

    def __call__(self, units):
        """A RecordedTraining of each unit."""
        task = self.task
        company = units if len(units) > 1 else 2 * units  # products of one are rounded otherwise than those of several
        recorder = None if task.recorder is None else clone(task.recorder)
        dataset, _ = task.template.get_split_datasets(task.X, task.y)
        given = {"X": task.X, "y": task.y, "dataset_train": dataset}
        return self._trainer().record(company, task.plan, recorder, **given)[: len(units)]


@dataclass(frozen=True)
class FitTask:
    """What networks trained at once share. Can be pickled, also by loky where the module lives in ``__main__``.

    Attributes
    ----------
    template : skorch.NeuralNet
        Unfitted, and silent.
    X, y
        As they are trained on.
    rows : Rows
        The same, as tensors.
    few : tree of Tensor
        Two of them.
    plan : LoaderPlan
    network : Network
    state : dict
        :func:`training_state` before a training.
    recorder : TrajectoryRecorder or None
    name : str or None
        Of what their steps do, for :class:`StackedTrainer`.
    """

    template: Any
    X: Any
    y: Any
    rows: Rows
    few: Any
    plan: LoaderPlan
    network: Network
    state: dict
    recorder: Any
    name: str | None

    @classmethod
    def of(cls, template, X, y, name=None):
        """The task of a template; ValueError with the reason where its networks are not to be trained at once."""
        template = clone(template).set_params(verbose=0)
        start = initialized(template)
        recorder = recorder_in(start)
        if reason := _why_in_turn(start, recorder):
            raise ValueError(reason)
        few, network = few_rows(start, X, y), Network.from_net(start)
        rows = network.prepare(X, y)
        if reason := why_not_vectorized(start, network, rows) or why_not_faster(network):
            raise ValueError(reason)
        train, valid = start.get_split_datasets(X, y)
        _, own = rows_after_split(train, X, count_rows(X, as_skorch=True), bool(start.train_split))
        plan = LoaderPlan(start, own, None if valid is None else len(valid))
        return cls(template, X, y, rows, few, plan, network, training_state(start), recorder, name)


def _why_in_turn(start, recorder):
    """What a net has that retraining leaves out; None where it has nothing of the kind."""
    if isinstance(start.module, torch.nn.Module):
        return "the net holds a module instance"
    if draws_examples(start):
        return "the loss draws, from a seed that belongs to each training"
    for _, callback in start.callbacks_:
        if isinstance(callback, _WRITING):
            return f"the callback {type(callback).__name__} writes while it trains"
    return "the recorder writes to a folder" if recorder is not None and recorder.dirname is not None else None


def choose_for_fit(loop, units, n_jobs):
    """The engine that fits best, and why.

    Parameters
    ----------
    loop : LoopEngine
    units : list of Unit
    n_jobs : int or None

    Returns
    -------
    engine : LoopEngine or AtOnceEngine
    reason : str
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is to be said is said by the training itself
            params = {k: v for k, v in loop.template.get_params(deep=False).items() if k != "callbacks"}
            name = digest([type(loop.template), params]) if replayable(loop.template) else None
            task = FitTask.of(loop.template, loop.X, loop.y, name)
            reason = _why_trial_differs(loop, units, name)
    except Exception as error:  # if a training fails too, it says so itself
        reason = str(error)
    if reason is not None:
        return loop, reason
    size = min(together(task.network), math.ceil(len(units) / joblib.effective_n_jobs(n_jobs)))
    return AtOnceEngine(task, size), "a trial of it gave what skorch gives"


def _why_trial_differs(loop, units, name):
    """Why short trainings on few rows differ; None where they do not."""
    template, n_rows = clone(loop.template), count_rows(loop.X, as_skorch=True)
    size = template.get_params_for("iterator_train").get("batch_size", template.batch_size)
    few = np.arange(n_rows if size == -1 else min(n_rows, N_TRIAL * size))
    X, y = take_rows(loop.X, few), None if loop.y is None else take_rows(loop.y, few)
    template.set_params(max_epochs=min(2, template.max_epochs))
    trial = AtOnceEngine(FitTask.of(template, X, y, name))
    return why_trial_differs(trial, LoopEngine(trial.task.template, X, y), units, trial.task.plan)
