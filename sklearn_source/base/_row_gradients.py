"""Gradients of single rows at any recorded weights: of their training loss, or of a measurement."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..gradients import Block, GradientEngine, loss_cotangent, to_matrices
from ..gradients.algebra import held_bytes
from ..loss import Measurement, require_derivative
from ..network import Network
from ..rows import Rows
from ..stochastic import Draw
from ..trajectory import Checkpoint
from ..utils._config import bytes_for
from ..utils._digest import digest, tensor_digest

_MAX_BATCH = 2048
# Rows that are looked at for parameters that only some rows use.
_LOOKED_AT = 16


@dataclass(frozen=True)
class State:
    """Weights on the network's device, ready to be switched to.

    Read more in the :ref:`User Guide <add_method>`.

    Parameters
    ----------
    step : int
        Optimizer steps taken; -1 for the trained weights.
    parameters, buffers : dict of str to Tensor
        By name, as the module has them.
    digest : str, default=""
        Of both, and of ``outside``.
    outside : dict, optional
        What the loss depended on besides; None: as it is in the trained net.
    draws : tuple of Draw, optional
        Where the loss draws: what the training rows draw here, if not what they draw elsewhere.
    """

    step: int
    parameters: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]
    digest: str = field(default="")
    outside: Mapping[str, Any] | None = field(default=None, repr=False)
    draws: tuple[Draw, ...] | None = field(default=None, repr=False)


class RowGradients:
    """Per-row gradients of a network, block by block, at the trained weights or at any checkpoint.

    What a method of one's own needs to look at gradients::

        self._gradients = RowGradients(self._network, self._rows, layers=self.layers)
        for start in range(0, self.n_train_, self._gradients.batch_size):
            rows = np.arange(start, min(start + self._gradients.batch_size, self.n_train_))
            losses = self._gradients.of_loss(*self._rows.batch(rows))    # one gradient object per block
            matrix = flat_gradients(losses)                              # (len(rows), n_parameters)

    Read more in the :ref:`User Guide <add_method>`.

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
    network : Network
        The private copy.
    engine : GradientEngine
        What pulls gradients back through the network, block by block.
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

    def __init__(
        self,
        network: Network,
        rows: Rows,
        *,
        layers: str | Sequence[str] | None = None,
        treatment: Mapping[str, Hashable] | None = None,
        batch_size: int | None = None,
    ):
        self.network = network
        parameters, buffers = network.parameters(), network.buffers()
        self.trained = State(-1, parameters, buffers, tensor_digest({**parameters, **buffers}))
        self.engine = GradientEngine(network.module, network.forward_as_trained, layers, treatment)
        # From first to last: neighbours may be of one class, which a network may treat alike.
        spread = np.linspace(0, len(rows) - 1, min(_LOOKED_AT, len(rows))).round().astype(int)
        self.engine.verify(rows.batch(spread)[0])
        probe, _ = rows.batch(np.arange(min(4, len(rows))))
        with self.engine.attached():
            capture = self.engine.capture(probe)
            self.probe = capture.pull(torch.ones_like(capture.output))
        self._n_draws = len(rows.draws or ())
        self.batch_size = batch_size or self._choose_batch_size()

    @property
    def blocks(self) -> list[Block]:
        """The parameters as matrices (groups, out, in), in the order of every list of gradients."""
        return self.engine.blocks

    @property
    def n_parameters(self) -> int:
        """How many numbers the blocks have together."""
        return self.engine.n_parameters

    def state(self, checkpoint: Checkpoint) -> State:
        """A recorded checkpoint on the network's device.

        Parameters
        ----------
        checkpoint : Checkpoint
            Of the training of this network.

        Returns
        -------
        state : State
            For ``state=`` of :meth:`of_loss` and :meth:`of_measurement`.
        """
        device, outside = self.network.device, self.network.relevant(checkpoint.outside)
        return State(
            checkpoint.step,
            {name: value.to(device) for name, value in checkpoint.parameters.items()},
            {name: value.to(device) for name, value in checkpoint.buffers.items()},
            # A checkpoint's own digest is of its parameters alone; gradients depend on the buffers too.
            f"{checkpoint.digest}-{tensor_digest(checkpoint.buffers)}" + ("" if outside is None else digest(outside)),
            outside,
        )

    def load(self, state: State) -> None:
        """Point the private network at other weights.

        Parameters
        ----------
        state : State
            Its tensors are used, not copied.
        """
        self.network.load(state.parameters, state.buffers, state.outside)

    def of_loss(self, x: Any, y: Any, state: State | None = None) -> list[Any]:
        """Gradients of the training loss of every row of a batch: ``grad l_m``, their mean that of training.

        Parameters
        ----------
        x, y : Tensor, or dict or list of Tensor
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

    def of_measurement(
        self, x: Any, y: Any, measure: Measurement, state: State | None = None, target: Any = None
    ) -> list[Any]:
        """Gradients of a measurement of every row of a batch: ``grad f_q``.

        Parameters
        ----------
        x : Tensor, or dict or list of Tensor
            A batch, from ``rows.batch(index)``.
        y : Tensor, or dict or list of Tensor, or None
            Its targets, where the measurement needs them.
        measure : Measurement
            What is measured of every row.
        state : State, optional
            None: the trained weights.
        target : Tensor, optional
            From ``measure.target``; None: taken from ``y`` or, without it, from the prediction at these weights.

        Returns
        -------
        gradients : list, one per block
            Objects of the algebra of gradients: ``matrix()`` gives (B, groups, out, in).
        """
        with self.engine.attached():
            self.load(state or self.trained)
            capture = self.engine.capture(x, self.network.forward)
            output = capture.output.detach().requires_grad_()
            if target is None:
                target = measure.target(output.detach(), y, x)
            with torch.enable_grad():
                values = measure(output, target, x)
                require_derivative(measure, values, output)
                cotangent = torch.autograd.grad(values.sum(), output)[0]
            return capture.pull(cotangent)

    def matrices(self, values: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Numbers per parameter element, an optimizer's second moments say, as one matrix per block.

        Parameters
        ----------
        values : mapping of str to Tensor
            By name, each of its parameter's shape; of any device.

        Returns
        -------
        matrices : list of tensor (groups, out, in), one per block
            On the network's device, in its dtype.
        """
        network = self.network
        values = {name: values[name].to(network.device, network.dtype) for name in self.engine.names}
        return [to_matrices(block, values) for block in self.blocks]

    def rows_at_once(self, n_columns: int) -> int:
        """How many rows can be taken together by memory.

        Parameters
        ----------
        n_columns : int
            Gradients of each row that are held at a time.

        Returns
        -------
        n_rows : int
            At least one.
        """
        return min(self.batch_size, self._rows_of_dense_gradients(n_columns))

    def rows_of_draws(self, draws: Sequence[Draw] | None) -> int:
        """How many rows can be taken together where each is an example of every one of some draws.

        Parameters
        ----------
        draws : sequence of Draw or None
            None: where the loss draws nothing.

        Returns
        -------
        n_rows : int
            At least one.
        """
        ratio = len(draws or ()) / max(self._n_draws, 1)
        return max(1, int(self.batch_size / max(ratio, 1.0)))

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

    def __init__(self, gradients, rows, index):
        self._gradients, self._rows, self._index = gradients, rows, index
        self._at, self._batch = {}, {}

    def at(self, state):
        """The gradients at a :class:`State`, one per block."""
        if id(state) not in self._at:
            self._at[id(state)] = self._gradients.of_loss(*self._drawn(state.draws), state)
        return self._at[id(state)]

    def _drawn(self, draws):
        """The batch, as the examples of some draws."""
        if draws not in self._batch:
            self._batch = {draws: self._rows.with_draws(draws).batch(self._index)}
        return self._batch[draws]

    def keep_only(self, states):
        """Forget the gradients at all other weights."""
        keep = {id(state) for state in states}
        self._at = {key: value for key, value in self._at.items() if key in keep}


def flat_gradients(gradients: Iterable[Any]) -> torch.Tensor:
    """The gradients of a batch as one row each.

    Only where that matrix is small: the algebra of gradients does most things without it.

    Read more in the :ref:`User Guide <add_method>`.

    Parameters
    ----------
    gradients : list, one per block
        From :meth:`RowGradients.of_loss` or :meth:`RowGradients.of_measurement`.

    Returns
    -------
    matrix : Tensor (B, n_parameters)
        The blocks side by side.
    """
    return torch.cat([gradient.matrix().flatten(1) for gradient in gradients], dim=1)
