"""What the recorder notes while a stage runs, and how that becomes a Stage with its checkpoints."""

from __future__ import annotations

from array import array

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from ._optimizer_kind import optimizer_kind
from ._segments import nearest_to_equal_split
from ._stage import HYPER_PARAMETERS, Stage

__all__ = ["StageLog", "block_of", "check_trained_parameters", "locate"]


class StageLog:
    """One stage in the making.

    Snapshots are kept at a stride; whenever more than twice the wanted number are held, every other one goes and the
    stride doubles. So memory is bounded without knowing the number of steps.

    Parameters
    ----------
    index, start : int
    n_rows : int or None
    row_hashes, exact_hashes : ndarray or None
        As of :class:`.Stage`.
    n_checkpoints : int or None
        Wanted in the end.
    """

    def __init__(self, index, start, n_rows, row_hashes, n_checkpoints=None, exact_hashes=None):
        self.n_checkpoints = n_checkpoints
        self.index = index
        self.start = start
        self.n_steps = 0
        self.n_rows = n_rows
        self.row_hashes, self.exact_hashes = row_hashes, exact_hashes
        self.rows = None
        self.optimizer = None
        self.blocks = []  # runs of steps with the same parameter groups
        self.batches = array("I")  # whose gradients each step added up
        self.draws = None  # Draws
        self.drawn = {}  # step -> how much each row was drawn up to it
        self.observations = []
        self.edits = []  # (step, relative size) of changes of the weights between steps
        self.initial = None  # None too when the stage begins at the last weights of the stage before
        self.begun = False
        self.continues = False
        self.held = []
        self.stride = 1
        self.tail = None  # the state at the last epoch's end, when no snapshot was due there
        self.epoch_ends = []  # (step, digest): which weights a callback may restore
        self.closed = False

    @property
    def end(self):
        """The last step so far, counted over all stages."""
        return self.start + self.n_steps

    def record_step(self, optimizer, names, values, n_batches=1):
        """Note the hyper-parameters of one step.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
        names : dict of int to str
            Names of the parameters by ``id``.
        values : list of float
            For each group lr, momentum, dampening, weight decay.
        n_batches : int
            Whose gradients the step added up.
        """
        kind = optimizer_kind(optimizer)
        groups = [(group["params"], [p.requires_grad for p in group["params"]]) for group in optimizer.param_groups]
        signature = kind, *((len(params), *map(id, params[:1]), *moves) for params, moves in groups)
        if not self.blocks or self.blocks[-1].signature != signature:
            if self.optimizer not in (None, kind):
                raise ValueError(
                    f"expected one optimizer per call of fit, but it changed from {self.optimizer} to {kind} after "
                    f"step {self.end}. Use partial_fit for the second part, so that it becomes a stage of its own"
                )
            self.optimizer = kind
            self.blocks.append(_Block(signature, [_describe_group(group, names) for group in optimizer.param_groups]))
        self.blocks[-1].values.extend(values)
        self.batches.append(n_batches)
        self.n_steps += 1

    def observe(self, observation):
        """Keep an observation: the first, and the last two. Returns what is left out for it."""
        self.observations.append(observation)
        return [self.observations.pop(1)] if len(self.observations) > 3 else []

    def count_draws(self):
        """Note how much each row was drawn so far."""
        if self.draws is not None and (drawn := self.draws.per_row()) is not None:
            self.drawn[self.end] = drawn

    def _drawn(self, end):
        """By step, up to ``end``; None where rows are drawn alike, or nothing is known."""
        return {step: drawn for step, drawn in self.drawn.items() if step <= end} or None

    def is_due(self, n_checkpoints):
        """Say whether the step just taken is to be kept."""
        return n_checkpoints is None or self.n_steps % self.stride == 0

    def hold(self, checkpoint, n_checkpoints):
        """Keep a snapshot, and return those that are thinned out for it."""
        self.held.append(checkpoint)
        if n_checkpoints is None or len(self.held) <= 2 * n_checkpoints:
            return []
        self.stride *= 2
        dropped = [held for held in self.held if (held.step - self.start) % self.stride]
        self.drawn = {step: drawn for step, drawn in self.drawn.items() if not (step - self.start) % self.stride}
        self.held = [held for held in self.held if (held.step - self.start) % self.stride == 0]
        return dropped

    def recorded(self, end=None):
        """List the checkpoints after the start, up to step `end`."""
        end = self.end if end is None else end
        tail = [self.tail] if self.tail is not None and (not self.held or self.tail.step > self.held[-1].step) else []
        return [checkpoint for checkpoint in self.held + tail if checkpoint.step <= end]

    def locate(self, digest):
        """Return the last step whose weights have this digest, None when none has."""
        known = self.epoch_ends + [(checkpoint.step, checkpoint.digest) for checkpoint in self.recorded()]
        return max((step for step, other in known if other == digest), default=None)

    def cut(self, end):
        """Forget the steps after `end` (their weights were thrown away), and return what was dropped."""
        dropped = [kept for kept in (*self.held, *self.observations) if kept.step > end]
        self.observations = [observation for observation in self.observations if observation.step <= end]
        self.edits = [(step, size) for step, size in self.edits if step <= end]
        self.drawn = {step: drawn for step, drawn in self.drawn.items() if step <= end}
        self.held = [checkpoint for checkpoint in self.held if checkpoint.step <= end]
        self.epoch_ends = [(step, digest) for step, digest in self.epoch_ends if step <= end]
        self.n_steps = end - self.start
        del self.batches[self.n_steps :]
        remaining, blocks = self.n_steps, []
        for block in self.blocks:
            if remaining > 0:
                blocks.append(block.first(remaining))
                remaining -= blocks[-1].n_steps
        self.blocks = blocks
        return dropped

    def to_stage(self, end: int) -> Stage:
        """Make the Stage of the steps up to `end`."""
        n_steps = end - self.start
        groups, values = _merge(self.blocks)
        hyper = {name: values[:n_steps, :, column].copy() for column, name in enumerate(HYPER_PARAMETERS)}
        rows = np.arange(self.n_rows) if self.rows is None else self.rows
        return Stage(
            self.index, self.start, end, self.optimizer, groups, hyper, self.n_rows, rows, self.row_hashes,
            continues=self.continues, batches=np.array(self.batches[:n_steps]),
            edits=tuple((step, size) for step, size in self.edits if step <= end),
            draws=self._drawn(end), exact_hashes=getattr(self, "exact_hashes", None),
        )  # fmt: skip


class _Block:
    """Steps taken with the same parameter groups; the values in 8 bytes each, for long trainings."""

    def __init__(self, signature, groups, values=()):
        self.signature = signature
        self.groups = groups
        self.values = array("d", values)

    @property
    def n_steps(self):
        return len(self.values) // (len(HYPER_PARAMETERS) * len(self.groups))

    def first(self, n_steps):
        return _Block(self.signature, self.groups, self.values[: n_steps * len(HYPER_PARAMETERS) * len(self.groups)])

    def table(self):
        return np.array(self.values).reshape(self.n_steps, len(self.groups), len(HYPER_PARAMETERS))

    def __getstate__(self):
        # The signature is made of ids, which mean nothing (or something else) in another process.
        return {"signature": None, "groups": self.groups, "values": self.values}


def block_of(groups, table):
    """A run of steps with the same groups, from its hyper-parameters (n_steps, n_groups, 4)."""
    return _Block(None, groups, np.ravel(table).tolist())


def locate(logs, digest):
    """Return the last step, of all stages, whose weights have this digest; None when none has."""
    return next((step for log in reversed(logs) if (step := log.locate(digest)) is not None), None)


def thin(checkpoints, n_checkpoints, start):
    """Choose the checkpoints to keep in the end: the last one and those nearest to an equal spacing."""
    if n_checkpoints is None or len(checkpoints) <= n_checkpoints:
        return list(checkpoints)
    steps = np.array([checkpoint.step for checkpoint in checkpoints])
    return [checkpoints[position] for position in nearest_to_equal_split(steps, n_checkpoints, start)]


def read_hyper_parameters(optimizer):
    """List lr, momentum, dampening and weight decay of each group, one after the other."""
    missing = {"lr": float("nan")}  # a rate must not be made up; the others are 0 where an optimizer has none
    return [
        float(group.get(name, missing.get(name, 0.0))) for group in optimizer.param_groups for name in HYPER_PARAMETERS
    ]


def check_trained_parameters(net):
    """Refuse an optimizer that trains more than ``module_``, before the first step is taken."""
    names = {id(value): name for name, value in net.module_.named_parameters()}
    for group in net.optimizer_.param_groups:
        _check_known(group, names)


def _check_known(group, names):
    unknown = [value for value in group["params"] if id(value) not in names]
    if unknown:
        shape = "not known yet" if is_lazy(unknown[0]) else tuple(unknown[0].shape)
        raise ValueError(
            "expected an optimizer that trains parameters of module_ only, but it holds others as well, of shape "
            f"{shape} (learnable parameters of the criterion, of a second module, or of a module that was replaced?). "
            "Move them into the module, or initialize the optimizer again"
        )


def _describe_group(group, names):
    _check_known(group, names)
    # A frozen parameter is held but has no gradient, so that the optimizer passes it over, decay and all.
    described = {"params": [names[id(value)] for value in group["params"] if value.requires_grad]}
    for key, value in group.items():
        if key in ("params", "param_names", *HYPER_PARAMETERS):
            continue
        value = _json_value(value)
        if value is not _NOT_JSON:
            described[key] = value
    return described


_NOT_JSON = object()


def _json_value(value):
    """A value as JSON can hold it (tuples come back as tuples), else the mark above."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        items = tuple(_json_value(item) for item in value)
        return _NOT_JSON if any(item is _NOT_JSON for item in items) else items
    return _NOT_JSON


def _merge(blocks):
    """Groups and values, (n_steps, n_groups, 4), of all blocks.

    Groups that changed on the way (layers unfrozen, say) are refined: two parameters share a group when they did all
    along, and where no group held a parameter its rates are 0, as it did not move.
    """
    if all(block.groups == blocks[0].groups for block in blocks):
        return tuple(blocks[0].groups), np.concatenate([block.table() for block in blocks])
    homes = {}  # parameter -> its group in each block, None where it has none
    for position, block in enumerate(blocks):
        for number, group in enumerate(block.groups):
            for name in group["params"]:
                homes.setdefault(name, [None] * len(blocks))[position] = number
    members = {}
    for name, home in homes.items():
        members.setdefault(tuple(home), []).append(name)
    groups = []
    for home, names in members.items():
        position = max(index for index, number in enumerate(home) if number is not None)
        groups.append({**blocks[position].groups[home[position]], "params": names})
    tables = []
    for position, block in enumerate(blocks):
        table = np.zeros((block.n_steps, len(groups), len(HYPER_PARAMETERS)))
        for column, home in enumerate(members):
            if home[position] is not None:
                table[:, column] = block.table()[:, home[position]]
        tables.append(table)
    return tuple(groups), np.concatenate(tables)
