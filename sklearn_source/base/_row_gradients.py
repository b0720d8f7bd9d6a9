"""Gradients of single rows at any recorded weights: of their training loss, or of a measurement."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ..gradients import GradientEngine, loss_cotangent, to_matrices
from ..gradients.algebra import held_bytes
from ..utils._config import bytes_for
from ..utils._digest import tensor_digest

_MAX_BATCH = 2048
# Rows that are looked at for parameters that only some rows use.
_LOOKED_AT = 16


@dataclass(frozen=True)
class State:
    """Weights on the network's device, ready to be switched to.

    Attributes
    ----------
    step : int
        Optimizer steps taken; -1 for the trained weights.
    parameters, buffers : dict of str to Tensor
    digest : str
        Of both.
    """

    step: int
    parameters: dict
    buffers: dict
    digest: str = field(default="")


class RowGradients:
    """Per-row gradients of a network, block by block, at the trained weights or at any checkpoint.

    What a method of one's own needs to look at gradients::

        self._gradients = RowGradients(self._network, self._rows, layers=self.layers)
        for start in range(0, self.n_train_, self._gradients.batch_size):
            rows = np.arange(start, min(start + self._gradients.batch_size, self.n_train_))
            losses = self._gradients.of_loss(*self._rows.batch(rows))    # one gradient object per block
            matrix = flat_gradients(losses)                              # (len(rows), n_parameters)

    Parameters
    ----------
    network : Network
        A private copy of the net.
    rows : Rows
        Training rows: some are looked at to see which layers use which parameters, and how large gradients are.
    layers : str or list of str, optional
        Names of layers or parameters; None: all that are trainable.
    treatment : dict of str to hashable, optional
        What the optimizer did with each parameter: weight and bias share a block only where that is the same.
    batch_size : int, optional
        None: by memory.

    Attributes
    ----------
    engine : GradientEngine
    blocks : list of Block
        The parameters as matrices (groups, out, in), in the order of every list of gradients.
    n_parameters : int
        Of all blocks together.
    trained : State
        The trained weights.
    probe : list of gradients
        Of any few rows, one per block: their forms and sizes.
    batch_size : int
        Rows to be taken at a time.

    Raises
    ------
    ValueError
        If a layer is unknown, or rows cannot be told apart in some layer.
    """

    def __init__(self, network, rows, *, layers=None, treatment=None, batch_size=None):
        self.network = network
        parameters, buffers = network.parameters(), network.buffers()
        self.trained = State(-1, parameters, buffers, tensor_digest({**parameters, **buffers}))
        self.engine = GradientEngine(network.module, network.forward, layers, treatment)
        self.engine.verify(rows.batch(np.arange(min(_LOOKED_AT, len(rows))))[0])
        probe, _ = rows.batch(np.arange(min(4, len(rows))))
        with self.engine.attached():
            capture = self.engine.capture(probe)
            self.probe = capture.pull(torch.ones_like(capture.output))
        self.batch_size = batch_size or self._choose_batch_size()

    @property
    def blocks(self):
        return self.engine.blocks

    @property
    def n_parameters(self):
        return self.engine.n_parameters

    def state(self, checkpoint):
        """A recorded checkpoint on the network's device: a :class:`State`."""
        device = self.network.device
        return State(
            checkpoint.step,
            {name: value.to(device) for name, value in checkpoint.parameters.items()},
            {name: value.to(device) for name, value in checkpoint.buffers.items()},
            # A checkpoint's own digest is of its parameters alone; gradients depend on the buffers too.
            f"{checkpoint.digest}-{tensor_digest(checkpoint.buffers)}",
        )

    def load(self, state):
        """Point the private network at other weights."""
        self.network.load(state.parameters, state.buffers)

    def of_loss(self, x, y, state=None):
        """Gradients of the training loss of every row of a batch: ``grad l_m``, their mean that of training.

        Parameters
        ----------
        x, y
            A batch, from ``rows.batch(index)``.
        state : State, optional
            None: the trained weights.

        Returns
        -------
        gradients : list, one per block
            Objects of the algebra of gradients: ``matrix()`` gives (B, groups, out, in).
        """
        with self.engine.attached():
            self.load(state or self.trained)
            capture = self.engine.capture(x)
            return capture.pull(loss_cotangent(self.network, capture.output, y, x))

    def of_measurement(self, x, y, measure, state=None, target=None):
        """Gradients of a measurement of every row of a batch: ``grad f_q``.

        Parameters
        ----------
        x, y
            A batch, from ``rows.batch(index)``.
        measure : Measurement
        state : State, optional
            None: the trained weights.
        target : optional
            From ``measure.target``; None: found from ``y`` or, without it, from the prediction at these weights.

        Returns
        -------
        gradients : list, one per block
            As in :meth:`of_loss`.
        """
        with self.engine.attached():
            self.load(state or self.trained)
            capture = self.engine.capture(x)
            output = capture.output.detach().requires_grad_()
            if target is None:
                target = measure.target(output.detach(), y, x)
            with torch.enable_grad():
                values = measure(output, target, x)
                cotangent = torch.autograd.grad(values.sum(), output)[0]
            return capture.pull(cotangent)

    def matrices(self, values):
        """Numbers per parameter element, a dict of CPU tensors by name, as one matrix per block on the device."""
        network = self.network
        values = {name: values[name].to(network.device, network.dtype) for name in self.engine.names}
        return [to_matrices(block, values) for block in self.blocks]

    def rows_at_once(self, n_columns):
        """Rows whose gradients, ``n_columns`` of each, can be taken together: at least one."""
        return min(self.batch_size, self._rows_of_dense_gradients(n_columns))

    def _rows_of_dense_gradients(self, n_columns):
        """Rows whose dense gradients fit their budget."""
        dense = held_bytes([gradient for gradient in self.probe if not gradient.has_factors]) / len(self.probe[0])
        return max(1, int(bytes_for("dense_gradients") // max(dense * n_columns, 1)))

    def _choose_batch_size(self):
        """Rows whose inputs and output gradients fit the budget."""
        per_row = held_bytes(self.probe) / len(self.probe[0])
        rows = int(np.clip(bytes_for("batch") // max(per_row, 1), 8, _MAX_BATCH))
        return min(rows, self._rows_of_dense_gradients(1))


class BatchGradients:
    """Loss gradients of one batch of training rows at several weights, each computed once while it is needed."""

    def __init__(self, gradients, x, y):
        self._gradients, self._x, self._y = gradients, x, y
        self._at = {}

    def at(self, state):
        """The gradients at a :class:`State`, one per block."""
        if id(state) not in self._at:
            self._at[id(state)] = self._gradients.of_loss(self._x, self._y, state)
        return self._at[id(state)]

    def keep_only(self, states):
        """Forget the gradients at all other weights."""
        keep = {id(state) for state in states}
        self._at = {key: value for key, value in self._at.items() if key in keep}


def flat_gradients(gradients):
    """The gradients of a batch as one row each: Tensor (B, n_parameters), the blocks side by side.

    Only where that matrix is small: the algebra of gradients does most things without it.
    """
    return torch.cat([gradient.matrix().flatten(1) for gradient in gradients], dim=1)
