"""The skorch callback that records a training."""

from __future__ import annotations

import os
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback
from torch.nn.parameter import is_lazy

from ..network import outside_state
from ..rows import RowStream, collate_of_net, count_rows, exact_row_hashes, known_rows, row_hashes, rows_after_split
from ..utils._digest import tensor_digest
from ._checkpoint import snapshot, with_buffers_of
from ._draws import Draws
from ._kept_record import KeptRecord
from ._observation import StepObserver, observed_at
from ._optimizer_kind import inner_optimizer, optimizer_kind
from ._recorder_checks import check_optimizer, check_parameters, lengths_of_epoch
from ._stage_log import StageLog, check_trained_parameters, locate, thin
from ._step_hooks import StepHooks

__all__ = ["TrajectoryRecorder"]


class TrajectoryRecorder(Callback):
    """Record checkpoints, and the learning rate of every step, while a skorch net trains.

    Put it among the ``callbacks`` of a net, anywhere in the list; ``Trajectory.from_net(net)`` reads the result.
    Training is not changed in any bit. A new ``fit`` starts a new record; ``partial_fit`` (or ``warm_start``) adds a
    stage.

    Read more in the :ref:`User Guide <recording>`.

    Parameters
    ----------
    n_checkpoints : int or None, default=6
        Checkpoints kept per stage, nearly equally spaced, the last step among them; the initial weights come on top.
        None keeps every step.
    dirname : path-like, optional
        Write the checkpoints to this directory while training, instead of holding them in memory. It becomes a
        trajectory that ``Trajectory.load`` opens, up to a recent checkpoint where the process was killed. What cannot
        be written (a full disk) is kept in memory. ``{run}`` in it becomes a number of its own for each training, as a
        search or a cross-validation needs, whose clones all record: ``"recorded/{run}"``. List the recorder after
        callbacks that restore weights at the end, so that the directory ends at them too (``Trajectory.from_net`` finds
        them in any order).
    optimizer_state : bool or "auto", default="auto"
        Record what the optimizer keeps per parameter. ``"auto"``: unless the optimizer is ``SGD``.
    overwrite : bool, default=False
        Replace a trajectory that `dirname` holds when ``fit`` starts. Other files are never touched.

    Attributes
    ----------
    stages_ : list
        What was recorded, one entry per stage; for ``Trajectory.from_net``.

    Raises
    ------
    ValueError
        When training starts: on bad parameters, on a net with several optimizers, on rows that cannot be told, on a
        directory that holds another trajectory.

    Notes
    -----
    Holds at most ``2 * n_checkpoints + 3`` copies of the network per running stage (with `dirname` all but one on disk)
    and 36 bytes per step and parameter group; and three observed steps, each with a copy of weights and gradients and
    the step's batches (up to 256 MiB), for :meth:`Trajectory.verify`. Costs two copies and one hash of the parameters
    per epoch, and about ``n_checkpoints * log2(n_steps / n_checkpoints) + 3 * log2(n_steps)`` further copies. Where a
    sampler, or an iterator of one's own, draws the rows, every batch is recognised by its contents.

    Examples
    --------
    >>> from skorch import NeuralNetRegressor
    >>> net = NeuralNetRegressor(MLP, callbacks=[TrajectoryRecorder()])  # doctest: +SKIP
    >>> trajectory = Trajectory.from_net(net.fit(X, y))  # doctest: +SKIP
    """

    def __init__(
        self,
        n_checkpoints: int | None = 6,
        *,
        dirname: str | os.PathLike | None = None,
        optimizer_state: bool | str = "auto",
        overwrite: bool = False,
    ):
        self.n_checkpoints = n_checkpoints
        self.dirname = dirname
        self.optimizer_state = optimizer_state
        self.overwrite = overwrite

    def initialize(self) -> TrajectoryRecorder:
        """Prepare for training. Keeps the record: skorch calls this too when a parameter is set on a trained net."""
        if not hasattr(self, "stages_"):
            self.stages_: list[StageLog] = []
            self.n_epochs_ = 0
            self.record_: Any = None
        self._release()
        return self

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Start afresh, or open a new stage."""
        check_parameters(self)
        check_optimizer(net)
        check_trained_parameters(net)
        self._open_record(fresh=not net.history)
        if not net.history:
            self.stages_, self.n_epochs_ = [], 0
        if self._is_open():
            self._close_stage(net)  # an exception ended the last training, and it goes on now
        self.fit_X_ = X = known_rows(net, X)
        n_rows = count_rows(X, as_skorch=True)
        start = self.stages_[-1].end if self.stages_ else 0
        by = collate_of_net(net)
        hashes = None if X is None else row_hashes(X, y, as_skorch=True, sample=True, collate=by)
        exact = None if hashes is None else exact_row_hashes(X, y, as_skorch=True)
        self.stages_.append(StageLog(len(self.stages_), start, n_rows, hashes, self.n_checkpoints, exact))
        self.observer_ = StepObserver(self.stages_[-1].edits)
        self._hook(net)

    def on_epoch_begin(self, net: NeuralNet, dataset_train: Any = None, **kwargs: Any) -> None:
        """Note which rows are trained on."""
        if not self._is_open():
            return  # a loop of the user's own, outside of fit
        log = self.stages_[-1]
        if log.rows is None and dataset_train is not None:
            n_given, split = log.n_rows, bool(net.train_split)
            log.n_rows, log.rows = rows_after_split(dataset_train, self.fit_X_, n_given, split)
            if n_given != log.n_rows:
                log.row_hashes = log.exact_hashes = None  # the net makes other rows of what it is given
        self.n_epochs_ = getattr(self, "n_epochs_", 0) + 1
        if log.draws is None and dataset_train is not None and log.n_rows:
            log.draws = Draws(net, self.fit_X_ if isinstance(self.fit_X_, RowStream) else dataset_train)
        self.observer_.epoch_begins(lengths_of_epoch(net, log))

    def on_batch_begin(self, net: NeuralNet, batch: Any = None, training: bool | None = None, **kwargs: Any) -> None:
        """Take the initial weights; follow an optimizer that was replaced."""
        if not training or not self._is_open():
            return
        if self.hooks_ is None or not self.hooks_.belong_to(net):
            check_optimizer(net)
            self._hook(net)
        if self.stages_[-1].draws is not None:
            self.stages_[-1].draws.add(batch)
        n_steps = self.stages_[-1].n_steps
        lazy = not n_steps and any(is_lazy(value) for value in [*net.module_.parameters(), *net.module_.buffers()])
        self.observer_.batch_begins(net, batch, observed_at(n_steps) and not lazy, outside_state)
        if self.stages_[-1].begun or self.hooks_.awaits_forward:
            return
        if lazy:
            # Lazy layers get their weights in the first forward pass, which runs inside the optimizer's first step.
            self.hooks_.await_forward(lambda: self._begin_stage(net))
        else:
            self._begin_stage(net)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Note which weights these are: a callback may restore them at the end."""
        log = self.stages_[-1] if self._is_open() else None
        if log is None or not log.n_steps or (log.epoch_ends and log.epoch_ends[-1][0] == log.end):
            return
        present = self._snapshot(net, log.end, log.index)
        log.epoch_ends.append((log.end, present.digest))
        if not log.held or log.held[-1].step < log.end:
            log.tail = present
        elif log.held[-1].digest != present.digest:
            log.held[-1] = self.record_.write(
                present
            )  # something, a projection say, changed the weights after the step

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Keep exactly the checkpoints wanted, and write the index."""
        if self._is_open():
            self._close_stage(net)
        self._release()
        self.record_.write_index(self.stages_)

    def _note_step(self, optimizer, values):
        """Write a step into the log, and keep a checkpoint where one is due."""
        if not self._is_open():
            return
        log = self.stages_[-1]
        n_batches, observation = self.observer_.step_taken(log.end + 1, log.index)
        log.record_step(optimizer, self.hooks_.names, values, n_batches)
        if observation is not None and (observation := self.record_.write_observation(observation)) is not None:
            self.record_.remove(log.observe(observation))
        self.observer_.compare_next(self.hooks_.module, log.n_steps)
        if log.is_due(self.n_checkpoints):
            checkpoint = self._snapshot(self.hooks_.net, log.end, log.index)
            log.count_draws()
            self.record_.remove(log.hold(self.record_.write(checkpoint), self.n_checkpoints))
            self.record_.write_index(self.stages_, ended=False)

    # Stages -------------------------------------------------------------------------------------------------

    def _begin_stage(self, net):
        """Take the initial weights, or find that they are those of an earlier step."""
        self.hooks_.stop_awaiting_forward()
        log, earlier = self.stages_[-1], self.stages_[:-1]
        log.begun = True
        log.continues = bool(net.optimizer_.state)
        if log.n_steps:
            return  # lazy weights that no forward pass of module_ itself announced: the initial ones are gone
        step = locate(earlier, tensor_digest(dict(net.module_.named_parameters()))) if earlier else None
        # What comes after the weights that training goes on from was thrown away (load_best=True).
        last = self._cut(earlier, step if step is not None else (earlier[-1].held[-1].step if earlier else 0))
        self.stages_ = [*earlier, log]
        log.index, log.start = len(earlier), last
        if not earlier or step is None:
            log.initial = self.record_.write(self._snapshot(net, log.start, log.index))
        elif not earlier[-1].held or earlier[-1].held[-1].step < last:
            earlier[-1].held.append(self.record_.write(snapshot(net.module_, last, log.index - 1)))
        self.record_.write_index(earlier)  # should this training fail, what came before it can still be loaded

    def _cut(self, logs, end):
        while logs and logs[-1].start >= end:
            log = logs.pop()
            self.record_.remove(log.held + log.observations + ([log.initial] if log.initial else []))
        if logs and logs[-1].end > end:
            self.record_.remove(logs[-1].cut(end))
        return end

    def _close_stage(self, net):
        """Reduce what is held to the checkpoints wanted."""
        log = self.stages_[-1]
        if not log.n_steps:
            self.record_.remove([log.initial] if log.initial else [])
            self.stages_.pop()
            return
        located = locate(self.stages_, tensor_digest(dict(net.module_.named_parameters())))
        if self.observer_ is not None:  # it is not pickled
            self.observer_.training_ends(net.module_, log.end, restored=located not in (None, log.end))
        if located is None and (not log.epoch_ends or log.epoch_ends[-1][0] < log.end):
            # Stopped before this callback saw the epoch's end; these are the weights of the last step.
            log.held = log.recorded(log.end - 1)
            log.tail = self._snapshot(net, log.end, log.index)
        log.held, log.tail = (
            [self.record_.write(point) if point is log.tail else point for point in log.recorded()],
            None,
        )
        step = log.end if located is None or located <= log.start else located
        # Spaced up to the weights that the net has now: steps whose result a callback discarded need no checkpoint.
        kept = [checkpoint for checkpoint in log.held if checkpoint.step <= step]
        if step == located and (not kept or kept[-1].step < step):
            kept.append(self.record_.write(snapshot(net.module_, step, log.index)))
        elif step == located and (last := with_buffers_of(kept[-1], net.module_)) is not kept[-1]:
            kept[-1] = self.record_.write(last)
        kept = thin(kept, log.n_checkpoints, log.start)
        remaining = {checkpoint.step for checkpoint in kept}
        self.record_.remove([checkpoint for checkpoint in log.held if checkpoint.step not in remaining])
        log.held = kept
        log.count_draws()
        log.draws, log.closed = None, True

    def _is_open(self):
        return bool(self.stages_) and not self.stages_[-1].closed

    def _open_record(self, fresh):
        given = None if self.record_ is None else self.record_.given
        if fresh and any(log.n_steps for log in self.stages_):
            self.record_ = None
        if not fresh and self.stages_ and self.dirname != given:
            raise ValueError(
                f"expected the dirname of the earlier stages, {given}, but it is {self.dirname} now. Set it back, or "
                "start afresh with fit"
            )
        if self.record_ is None or self.record_.given != self.dirname:
            self.record_ = KeptRecord(self.dirname, self.overwrite)
        else:
            self.record_.check_current()

    # Hooks and checks ---------------------------------------------------------------------------------------

    def _hook(self, net):
        self._remove_hooks()
        self.hooks_ = StepHooks(
            net,
            self._note_step,
            before_step=lambda: self.observer_.step_begins(net.module_, self.stages_[-1].end),
            on_gradient=lambda: self.observer_.gradient_is_known(net.module_),
        )

    def _remove_hooks(self):
        if getattr(self, "hooks_", None) is not None:
            self.hooks_.remove()
        self.hooks_ = None

    def _release(self):
        self._remove_hooks()
        self.fit_X_ = self.observer_ = None

    def __getstate__(self):
        # Hooks do not survive pickling, and the rows given to fit are not ours to carry along.
        state = self.__dict__.copy()
        if "hooks_" in state:
            state.update(hooks_=None, fit_X_=None, observer_=None)
        return state

    def _snapshot(self, net, step, stage):
        wanted, optimizer = self.optimizer_state, inner_optimizer(net.optimizer_)
        if wanted == "auto":
            wanted = optimizer_kind(optimizer) != "SGD"
        return snapshot(net.module_, step, stage, optimizer if wanted else None, outside_state(net))
