"""A step seen from close by: what is needed to form its gradient again, and the gradient that the optimizer got."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..utils._compat_torch import tree_leaves

__all__ = ["Observation", "StepObserver", "observed_at"]

_LARGEST_BATCH = 2**28  # bytes


@dataclass(eq=False)
class Observation:
    """One observed step.

    Parameters
    ----------
    step : int
        Number of the step, counted over all stages.
    stage : int
    parameters, buffers : dict of str to Tensor
        Before the step's first forward pass.
    gradients : dict of str to Tensor
        What the optimizer got; a parameter without gradient is left out.
    batches : list of (batch, random states)
        Every batch whose gradients the step added up, as the net's iterator gave it, and the states of torch's and
        NumPy's global generators when the net was about to read it.
    outside : dict
        See :func:`outside_state`.
    """

    step: int
    stage: int
    parameters: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    batches: list[tuple[Any, dict[str, Any]]]
    outside: dict[str, Any]
    path = None

    def load(self):
        """Itself: it is in memory."""
        return self


def observed_at(n_steps):
    """Whether the step after so many of a stage is observed: the first ones, and then at doubling distances."""
    return n_steps & (n_steps - 1) == 0


class StepObserver:
    """Follows what the steps of one stage are made of.

    Batches per step, whether weights changed between steps, and at few steps all that an :class:`Observation` holds.

    Attributes
    ----------
    edits : list of (int, float)
        Steps after which something else than the optimizer changed the weights, and by how much relative to their norm.
    """

    def __init__(self, edits):
        self.edits = edits
        self.n_batches = 0
        self._in_epoch, self._ends_of_epoch = 0, set()
        self._begun = None  # parameters, buffers, batches and outside state of a step to be observed
        self._weights_after = None  # of the last step, where the next is to be compared with them
        self._gradients = None

    # What happens, in this order --------------------------------------------------------------------------------

    def epoch_begins(self, ends):
        """``ends``: how many batches the epoch may have."""
        self._ends_of_epoch = {*ends, self._in_epoch}  # or as many as the last one
        self._in_epoch = 0

    def batch_begins(self, net, batch, wanted, outside):
        """A batch is about to be read; ``wanted`` says whether its step is observed, ``outside`` reads the net."""
        self.n_batches += 1
        self._in_epoch += 1
        if not wanted:
            self._begun = None
            return
        if self._begun is None:
            if self.n_batches > 1:
                return  # began before it was wanted
            module = net.module_
            self._begun = (_copies(module.named_parameters()), _copies(module.named_buffers()), [], outside(net))
        kept = _copied_batch(batch)
        if kept is None:
            self._begun = None
            return
        self._begun[2].append((kept, _random_states(net)))

    def step_begins(self, module, n_steps):
        """The optimizer's step begins, before its closure runs."""
        if self._weights_after is None:
            return
        before, self._weights_after = self._weights_after, None
        change = sum(float((p.detach() - q).square().sum()) for p, q in zip(module.parameters(), before))
        if change > 0:
            self.edits.append((n_steps, (change / max(sum(float(q.square().sum()) for q in before), 1e-300)) ** 0.5))

    def gradient_is_known(self, module):
        """The gradient that the optimizer steps by lies in the parameters."""
        if self._begun is not None:
            self._gradients = _copies((n, p.grad) for n, p in module.named_parameters() if p.grad is not None)

    def step_taken(self, step, stage):
        """Number of batches of the step, and the observation or None."""
        n_batches, self.n_batches = max(self.n_batches, 1), 0  # a second step by the same batch
        begun, gradients = self._begun, self._gradients
        self._begun = self._gradients = None
        if begun is None or gradients is None or not begun[2]:
            return n_batches, None
        parameters, buffers, batches, outside = begun
        return n_batches, Observation(step, stage, parameters, buffers, gradients, batches, outside)

    def compare_next(self, module, n_steps):
        """Where it is time, keep the weights that the step left, to be compared with those that the next one finds.

        Callbacks change weights after every batch or at the end of an epoch.
        """
        if observed_at(n_steps) or self._in_epoch in self._ends_of_epoch:
            self._weights_after = [p.detach().clone() for p in module.parameters()]

    def training_ends(self, module, n_steps, restored):
        """The stage is over: were its last weights changed, unless a callback ``restored`` those of an epoch's end?"""
        if restored:
            self._weights_after = None
        self.step_begins(module, n_steps)
        self._begun = None


def _copies(named):
    return {name: _dense(value.detach()).to("cpu", copy=True) for name, value in named if value is not None}


def _dense(value):
    return value.to_dense() if value.is_sparse else value


def _copied_batch(batch):
    """A deep copy on the CPU, None where it cannot be copied or is very large."""
    tensors = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > _LARGEST_BATCH:
        return None
    try:
        return copy.deepcopy(batch)
    except Exception:  # batches are the user's own objects
        return None


def _random_states(net):
    states = {"torch": torch.get_rng_state(), "numpy": np.random.get_state()}
    device = torch.device(net.device) if net.device is not None else torch.device("cpu")
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states
