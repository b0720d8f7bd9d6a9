"""Tensors without rows that meet a batch by broadcasting: parted by rows before they do, so that each row's share of
the gradient arrives apart.

A learned scale, a table of positions and the embedding of ``arange(T)`` are the same for all rows, and autograd sums
their gradients over the batch where they are broadcast. ``p * x`` is replaced by ``p.expand(B, ...) * x``, the same
values, and the gradient of the expanded tensor is one gradient per row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._row_layout import RowLayout
from ._vector_rule import VectorRule

_NAMES = ("add", "sub", "mul", "div", "true_divide", "pow", "maximum", "minimum")
_OPERATORS = ("add", "sub", "mul", "truediv", "pow")
IN_PLACE = {getattr(torch.Tensor, f"{name}_") for name in ("add", "sub", "mul", "div")}
IN_PLACE |= {getattr(torch.Tensor, f"__i{name}__") for name in ("add", "sub", "mul", "truediv")}
ELEMENTWISE = {getattr(torch, name) for name in _NAMES} | {getattr(torch.Tensor, name) for name in _NAMES}
ELEMENTWISE |= {getattr(torch.Tensor, f"__{side}{name}__") for side in ("", "r") for name in _OPERATORS} | IN_PLACE
EXPANSIONS = {torch.Tensor.expand, torch.Tensor.expand_as, torch.Tensor.repeat, torch.broadcast_to}


@dataclass(frozen=True)
class Broadcast:
    """Where a view of a base tensor was broadcast along the axis of the rows.

    Attributes
    ----------
    shape : tuple
        Of the base.
    sizes, strides, offset
        The view's, with as many axes as the broadcast tensor.
    axis : int
        Of the rows.
    """

    shape: torch.Size
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    axis: int

    def per_row(self, grad, n_rows):
        """(B, *shape) gradient of the base from that of the broadcast tensor."""
        sizes, strides = list(self.sizes), list(self.strides)
        for other in range(grad.dim()):
            if other != self.axis and (grad.shape[other] != sizes[other] or strides[other] == 0):
                grad = grad.sum(other, keepdim=True)  # broadcast there too
                sizes[other] = 1
        del sizes[self.axis], strides[self.axis]
        rows = RowLayout(n_rows).split(grad.movedim(self.axis, 0)).sum(1)
        size = self.shape.numel()
        total = rows.new_zeros((n_rows, size))
        total.as_strided((n_rows, *sizes), (size, *strides), self.offset).add_(rows)
        return total.view(n_rows, *self.shape)


def broadcast_of(view, base, broadcast_shape, axis):
    """The :class:`Broadcast` of a view that takes ``broadcast_shape`` and is one long at the rows' axis, else None."""
    lead = len(broadcast_shape) - view.dim()
    if lead < 0 or axis >= len(broadcast_shape) or not base.is_contiguous():
        return None
    sizes, strides = (1,) * lead + tuple(view.shape), (0,) * lead + view.stride()
    if sizes[axis] != 1:
        return None
    return Broadcast(base.shape, sizes, strides, view.storage_offset() - base.storage_offset(), axis)


class Derived:
    """What was computed of one parameter alone, as ``-exp(A_log)`` is: without rows, like the parameter.

    Called with gradients of it, (B, *its shape), it gives those of the parameter.
    """

    def __init__(self, tensor, parameter, name):
        self.tensor, self.parameter, self.name = tensor, parameter, name

    def __call__(self, grads):
        return torch.autograd.grad(self.tensor, self.parameter, grads, retain_graph=True, is_grads_batched=True)[0]


@dataclass(frozen=True)
class BroadcastParameter(VectorRule):
    """A bare parameter, or what is :class:`Derived` of it, broadcast over the batch: what comes back is parted by rows.

    The input of a use is that derivation, None for the parameter itself.
    """

    is_broadcast = True

    def of_use(self, use, grad, layout):
        return grad if use.x is None else use.x(grad)
