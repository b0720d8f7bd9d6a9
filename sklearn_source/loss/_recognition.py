"""The Hessian of a row's loss in its outputs, for losses of any code: recognised by asking the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._weighted_mean import FAILURES, TOLERANCE, stand_in


@dataclass(frozen=True)
class Structure:
    """What kind of matrix the output Hessian of every row is.

    Attributes
    ----------
    kind : {"categorical", "categorical_logprobs", "categorical_probs", "laplace", "diagonal"}
        A softmax cross-entropy at every position (of logits, log-probabilities or probabilities), an absolute error, or
        any other loss that is a sum over the elements of the output.
    axis : int
        The axis of the classes: 1 or the last.
    """

    kind: str
    axis: int = 1

    def scale(self, losses, output):
        """What multiplies the textbook Hessian: (B, *positions), zero at positions that do not count.

        Parameters
        ----------
        losses : callable
            Row losses (B,) as a function of the outputs.
        output : Tensor (B, ...)
        """
        if self.kind == "laplace":
            return gradient(losses, output).abs()
        if self.kind == "diagonal":
            return hessian_product(losses, output, torch.ones_like(output)).clamp(min=0)
        if self.kind == "categorical_logprobs":
            return -gradient(losses, output).sum(self.axis)
        if self.kind == "categorical_probs":
            return -(gradient(losses, output) * (output + torch.finfo(output.dtype).eps)).sum(self.axis)
        # The gradient is s (p - target): between two outputs the targets drop out.
        p = output.softmax(self.axis)
        spike = torch.zeros_like(p).scatter(self.axis, p.argmin(self.axis, keepdim=True), 12.0)
        change, step = gradient(losses, output) - gradient(losses, spike), p - spike.softmax(self.axis)
        return (change * step).sum(self.axis) / step.square().sum(self.axis)

    def probabilities(self, output):
        """(B, C, *positions): the classes' probabilities, their axis moved to the second place."""
        if self.kind == "categorical":
            p = output.softmax(self.axis)
        else:
            p = output.exp() if self.kind == "categorical_logprobs" else output
        return p.movedim(self.axis, 1)

    def labels(self, losses, output):
        """The class that the loss asks for at every position, -1 where none counts: (B, *positions) of int64."""
        scale, grad = self.scale(losses, output), gradient(losses, output)
        # s (p - target) on logits, -s target on log-probabilities, -s target / p on probabilities.
        asked = {"categorical": lambda s: s * output.softmax(self.axis) - grad, "categorical_logprobs": lambda s: -grad}
        asked = asked.get(self.kind, lambda s: -grad * output)(scale.unsqueeze(self.axis))
        floor = TOLERANCE.get(output.dtype, 2e-2) * scale.flatten(1).amax(1).reshape(-1, *[1] * (scale.ndim - 1))
        return asked.argmax(self.axis).where(scale > floor, -1)


def find_structure(losses, output, *, laplace=False):
    """The structure of the Hessians of some rows' losses, by products with them; None where it is none of these.

    Parameters
    ----------
    losses : callable
        Row losses (B,) as a function of the outputs, every row by itself.
    output : Tensor (B, ...)
        Of a few rows.
    laplace : bool
        Whether the criterion is an absolute error, whose Hessian says nothing.

    Returns
    -------
    Structure or None
    """
    output = output.detach()
    axes = [axis for axis in sorted({1, output.ndim - 1}) if 0 < axis < output.ndim and output.shape[axis] > 1]
    candidates = [Structure("categorical", axis) for axis in axes]
    for axis in axes:
        if _normalised(output.exp(), axis):
            candidates.append(Structure("categorical_logprobs", axis))
        if (output >= 0).all() and _normalised(output, axis):
            candidates.append(Structure("categorical_probs", axis))
    candidates += [Structure("laplace")] if laplace else []
    candidates.append(Structure("diagonal"))
    return next((c for c in candidates if _holds(c, losses, output)), None)


def gradient(losses, output):
    """Gradients of the row losses, each in its own row's output."""
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(losses(leaf).sum(), leaf)[0].detach()


def hessian_product(losses, output, vector):
    """Every row's Hessian times ``vector``, which is like ``output``."""
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        first = torch.autograd.grad(losses(leaf).sum(), leaf, create_graph=True)[0]
        if not first.requires_grad:
            return torch.zeros_like(output)
        second = torch.autograd.grad((first * vector).sum(), leaf, allow_unused=True)[0]
    return torch.zeros_like(output) if second is None else second.detach()


def _holds(structure, losses, output):
    try:
        return _fits(structure, losses, output)
    except FAILURES:  # probabilities asked for as logits, a loss without a second derivative
        return False


def _fits(structure, losses, output):
    axis, kind = structure.axis, structure.kind
    other = 0.5 * output + 0.5 * _elsewhere(output, axis, kind)
    generator = torch.Generator().manual_seed(0)
    for at in (output, other):
        vector = torch.randn(at.shape, generator=generator, dtype=torch.float64).to(at)
        if kind == "laplace":
            found, expected = gradient(losses, at).abs(), gradient(losses, output).abs()
        elif kind == "categorical_logprobs":
            # Linear in the outputs, and no class asked for less than not at all.
            found, expected = gradient(losses, at), gradient(losses, output).clamp(max=0)
        elif kind == "categorical_probs":
            eps = torch.finfo(at.dtype).eps
            found, expected = gradient(losses, at) * (at + eps), gradient(losses, output).clamp(max=0) * (output + eps)
        else:
            found, scale = hessian_product(losses, at, vector), structure.scale(losses, at)
            if kind == "diagonal":
                expected = scale * vector
            else:
                p = at.softmax(axis)
                expected = scale.unsqueeze(axis) * (p * vector - p * (p * vector).sum(axis, keepdim=True))
        tolerance = 10 * TOLERANCE.get(at.dtype, 2e-2)
        size = expected.abs().max()
        if not size > 0 or not torch.isfinite(found).all() or (found - expected).abs().max() > tolerance * size:
            return False
    return True


def _elsewhere(output, axis, kind):
    """Other outputs of the same nature: half way to them, probabilities are still probabilities."""
    made = stand_in(output)
    return made / made.sum(axis, keepdim=True) if kind == "categorical_probs" else made


def _normalised(p, axis):
    total = p.sum(axis)
    return bool((total - 1).abs().max() <= 10 * TOLERANCE.get(p.dtype, 2e-2))
