"""Nets whose loss draws: the protocol, and what trains by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from skorch.dataset import unpack_data
from skorch.utils import to_tensor

from ..rows import hash_batch
from ..utils._compat_torch import tree_leaves
from ..utils._tree import map_tensors
from ._draw import Draw, RowRandom, fresh_draws

if TYPE_CHECKING:
    from skorch import NeuralNet as _Net
else:
    _Net = object

_MEASURED = 16  # draws that a measurement is a mean over, where the net says nothing else


class StochasticLossMixin(_Net):
    """For skorch nets whose loss draws random numbers: noise, timesteps, augmentations.

    To the left of the net's own class::

        class AugmentedNet(StochasticLossMixin, NeuralNetClassifier):
            def example(self, X, y, random):
                shift = random.integers(-2, 3)
                return shifted(X, shift), y

    ``example`` is all that a net has to give: it makes ordinary examples of a batch of rows, one of each, and takes its
    random numbers from ``random``. ``infer`` and ``get_loss`` see examples only, and draw nothing. Training gives every
    row a new draw in each epoch, by a counter-based generator keyed by ``draw_seed_``, the row's content and the epoch:
    what a row drew is known afterwards. Methods of attribution take means over draws.

    Two more methods may be given: :meth:`measured_draws`, and :meth:`training_draw`.

    Read more in the :ref:`User Guide <draws>`.

    Attributes
    ----------
    draw_seed_ : int
        Drawn from torch's global generator when the net is initialized, behind its weights.

    Notes
    -----
    Rows that equal each other draw the same in an epoch. Validation losses are means over :meth:`measured_draws`.
    """

    def example(self, X: Any, y: Any, random: RowRandom) -> tuple[Any, Any]:
        """Make an example of every row of a batch.

        Parameters
        ----------
        X : Tensor, or dict or list of Tensor
            As the net's iterator gives rows, on the net's device.
        y : Tensor or None
            Their targets; where there are none, None, or zeros as skorch puts them in training.
        random : RowRandom
            The rows' random numbers. ``random.given`` is what the draw leaves to no chance, None in training.

        Returns
        -------
        X, y : Tensor, or dict or list of Tensor
            What ``infer`` and ``get_loss`` take, as many as there are rows, in their order.
        """
        raise NotImplementedError(f"{type(self).__name__} says not what an example of a row is: give it example()")

    def measured_draws(self) -> list[Draw]:
        """The draws over which the loss of a query, or of a validation row, is a mean.

        Returns
        -------
        draws : list of Draw
            By default 16, the same for all nets.
        """
        return fresh_draws(0, _MEASURED)

    def training_draw(self, epoch: int) -> Draw:
        """The draw of all rows in an epoch of the training.

        Parameters
        ----------
        epoch : int
            From 1 on: the length of the history.

        Returns
        -------
        draw : Draw
        """
        return Draw(self.draw_seed_, epoch)

    def initialize(self) -> StochasticLossMixin:
        """Initialize all components of the net, and draw the seed of its draws.

        Returns
        -------
        self : object
        """
        super().initialize()
        self.draw_seed_ = int(torch.randint(2**31, ()))
        return self

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """A training step's loss and gradients, of the examples that the rows are in this epoch.

        Parameters
        ----------
        batch : object
            As the iterator gives it.
        **fit_params : dict
            For ``infer``.

        Returns
        -------
        step : dict
            Loss and prediction.
        """
        return super().train_step_single(step_examples(self, batch), **fit_params)

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """The loss of validation rows, a mean over :meth:`measured_draws`.

        Parameters
        ----------
        batch : object
            As the iterator gives it.
        **fit_params : dict
            For ``infer``.

        Returns
        -------
        step : dict
            Loss, and the prediction for the last draw.
        """
        examples = [batch_examples(self, batch, draw) for draw in self.measured_draws()]
        steps = [super(StochasticLossMixin, self).validation_step(batch, **fit_params) for batch in examples]
        return {**steps[-1], "loss": torch.stack([step["loss"] for step in steps]).mean()}


def draws_examples(net: Any) -> bool:
    """Whether a net's loss draws, by the protocol of :class:`StochasticLossMixin`.

    Parameters
    ----------
    net : skorch.NeuralNet
    """
    return isinstance(net, StochasticLossMixin)


def step_examples(net: Any, batch: Any) -> tuple[Any, Any]:
    """What the loss of a training step is of: the batch, or the examples that it is in the epoch that runs.

    Parameters
    ----------
    net : skorch.NeuralNet
        Its history says which epoch.
    batch : object
        As the net's iterator gives it.

    Returns
    -------
    Xi, yi : Tensor, or dict or list of Tensor
    """
    if not draws_examples(net):
        return unpack_data(batch)
    return batch_examples(net, batch, net.training_draw(len(net.history)))


def batch_examples(net, batch, draw):
    """The examples that one draw makes of a batch as the net's iterator gives it."""
    Xi, yi = (map_tensors(lambda tensor: to_tensor(tensor, net.device), tree) for tree in unpack_data(batch))
    dtype = next((p.dtype for p in net.module_.parameters() if p.is_floating_point()), torch.float32)
    return examples_of(net.example, Xi, yi, RowRandom(row_keys(Xi), draw, dtype, net.device))


def stacked_examples(net: Any, draws: list[Draw], x: Any, y: Any) -> tuple[Any, Any]:
    """What the losses of a step of many networks are of, each with draws of its own.

    Parameters
    ----------
    net : skorch.NeuralNet
        Whose loss draws; the others are like it.
    draws : list of Draw
        Of each network, which leave all to chance.
    x, y : tree of Tensor
        (n_networks, B, ...).

    Returns
    -------
    x, y : tree of Tensor
        The same axes.
    """
    rows, targets = join_draws(x), join_draws(y)
    keys = row_keys(rows)
    each = len(keys) // len(draws)
    seeds: Any = np.repeat([draw.seed for draw in draws], each)
    numbers: Any = np.repeat([draw.number for draw in draws], each)
    dtype = next((p.dtype for p in net.module_.parameters() if p.is_floating_point()), torch.float32)
    made = examples_of(net.example, rows, targets, RowRandom(keys, Draw(seeds, numbers), dtype, net.device))
    inputs, targets = (map_tensors(lambda leaf: leaf.unflatten(0, (len(draws), each)), tree) for tree in made)
    return inputs, targets


def row_keys(x):
    """What the random numbers of the rows of a batch are keyed by: fingerprints of their contents."""
    keys = hash_batch(x)
    if keys is None:
        raise ValueError(
            "expected rows of numbers, by whose contents a loss that draws finds its random numbers, got rows that "
            "cannot be read as such"
        )
    return keys


def examples_of(example, x, y, random):
    """The examples that a draw makes of a batch of rows."""
    made = example(x, y, random)
    if not isinstance(made, tuple) or len(made) != 2:
        raise ValueError(f"expected example to return inputs and targets, (X, y), got a {type(made).__name__}")
    return made


def join_draws(tree):
    """Tensors (B, n_draws, ...) of a batch as those of ordinary examples, (B * n_draws, ...)."""
    joined = map_tensors(lambda tensor: tensor.flatten(0, 1), tree)
    return tuple(joined) if isinstance(tree, tuple) else joined


def split_draws(returned, x, axis):
    """What was returned for the joined examples of ``x``, with their draws in an axis of their own."""
    sizes = next(leaf for leaf in tree_leaves(x) if isinstance(leaf, torch.Tensor)).shape[:2]
    split = map_tensors(lambda tensor: tensor.unflatten(0, sizes).movedim(1, axis), returned)
    return tuple(split) if isinstance(returned, tuple) else split
