"""What a module returns as the one tensor that gradients are pulled back from."""

from __future__ import annotations

import torch

from ..utils._compat_torch import tree_map
from ._weighted_mean import FAILURES


class Outputs:
    """The first output of a module, or all those that its loss reads, side by side: (B, D), examples (B, n_draws, D).

    Parameters
    ----------
    returned : Tensor or tuple, optional
        Of a batch, by which the form of what the module returns is known.
    read : sequence of int, default=()
        Which outputs besides the first the loss reads.
    n_axes : int, default=1
        Axes that are of rows or examples.
    """

    def __init__(self, returned=None, read=(), n_axes=1):
        self._n = len(returned) if isinstance(returned, tuple) else None
        self._joined, self._n_axes = (0, *read) if read else None, n_axes
        self._shapes = [tuple(returned[i].shape[n_axes:]) for i in self._joined] if read else None

    @property
    def are_several(self):
        """Whether the module returns more than one."""
        return self._n is not None and self._n > 1

    @property
    def are_joined(self):
        """bool: whether the tensor holds more than the first output."""
        return self._joined is not None

    def join(self, returned):
        """The tensor, of what the module returned."""
        if not self.are_joined:
            return returned[0] if isinstance(returned, tuple) else returned
        if not isinstance(returned, tuple) or len(returned) != self._n:
            raise ValueError(
                f"expected the {self._n} outputs that the module returned for the training rows, of which the loss "
                f"reads {list(self._joined)}, got {len(returned) if isinstance(returned, tuple) else 1}"
            )
        parts = [returned[i] for i in self._joined]
        return torch.cat([part.reshape(*part.shape[: self._n_axes], -1) for part in parts], dim=self._n_axes)

    def first(self, output):
        """The first output, which predictions and measurements are of."""
        return self._parts(output)[0] if self.are_joined else output

    def returned(self, output):
        """What the module returned, as ``get_loss`` takes it; None in the place of what it does not read."""
        if self._n is None:
            return output
        all_of_them = [None] * self._n
        for i, part in zip(self._joined or (0,), self._parts(output) if self.are_joined else (output,)):
            all_of_them[i] = part
        return tuple(all_of_them)

    def _parts(self, output):
        sizes = [int(torch.Size(shape).numel()) for shape in self._shapes]
        parts = output.split(sizes, dim=self._n_axes)
        return [part.reshape(*output.shape[: self._n_axes], *shape) for part, shape in zip(parts, self._shapes)]


def find_outputs(loss, returned, n_axes=1):
    """Which outputs a loss reads, by its gradients.

    Parameters
    ----------
    loss : callable
        Of what the module returned, for a batch.
    returned : Tensor or tuple
        Of that batch.
    n_axes : int, default=1
        Axes that are of rows or examples.

    Returns
    -------
    Outputs

    Raises
    ------
    ValueError
        If the loss reads an output that does not have one entry per row.
    """
    if not isinstance(returned, tuple) or len(returned) < 2:
        return Outputs(returned)
    leaves = tuple(_leaf(part) for part in returned)
    try:
        with torch.enable_grad():
            value = torch.as_tensor(loss(leaves)).sum()
    except (*FAILURES, AttributeError, KeyError):  # what is wrong with it is said by the checks that follow
        return Outputs(returned)
    wanted = [i for i, part in enumerate(leaves) if i and isinstance(part, torch.Tensor) and part.requires_grad]
    if not wanted or not value.requires_grad:
        return Outputs(returned)
    gradients = torch.autograd.grad(value, [leaves[i] for i in wanted], allow_unused=True)
    read = [i for i, gradient in zip(wanted, gradients) if gradient is not None]
    for i in read:
        if returned[i].ndim == 0 or len(returned[i]) != len(returned[0]):
            raise ValueError(
                f"the net's loss reads output {i} of its module, of shape {tuple(returned[i].shape)}, which has not "
                f"one entry for each of the {len(returned[0])} rows: return (rows, ...) from forward"
            )
    return Outputs(returned, read, n_axes)


def _leaf(part):
    """A copy to take gradients in, where it is a tensor of numbers."""
    if isinstance(part, torch.Tensor) and part.is_floating_point():
        return part.detach().clone().requires_grad_()
    return part


def copied(returned):
    """Copies of all tensors, for a loss that works in place; they keep their graph."""
    return tree_map(lambda part: part.clone() if isinstance(part, torch.Tensor) else part, returned)
