"""What a network's output parametrises, and roots of the criterion's Hessian in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from skorch import NeuralNetClassifier

from ..utils._compat_skorch import criterion_names
from ..utils._warnings import warn

_KINDS = {
    torch.nn.CrossEntropyLoss: "categorical",
    torch.nn.BCEWithLogitsLoss: "bernoulli",
    torch.nn.MSELoss: "gaussian",
    torch.nn.L1Loss: "laplace",
}


_MAX_MATRIX = 4096  # outputs of a row whose full Hessian is still formed


def kind_of(net, overridden, dtype, device):
    """What the outputs of a net parametrise, and whether the closed forms below hold for its loss.

    Returns
    -------
    kind : str
        See :class:`Network`.
    closed : bool
    """
    criterion = getattr(net, "criterion_", None)
    if len(criterion_names(net)) != 1:
        return "unknown", False
    if isinstance(criterion, torch.nn.NLLLoss):
        if overridden:
            kind = _probe_nll(net, criterion, dtype, device)
        else:
            kind = "categorical_probs" if isinstance(net, NeuralNetClassifier) else "categorical_logprobs"
        return kind, not overridden and type(criterion) is torch.nn.NLLLoss
    for cls, kind in _KINDS.items():
        if isinstance(criterion, cls):
            return kind, type(criterion) is cls and not overridden
    return "unknown", False


def _probe_nll(net, criterion, dtype, device):
    """Whether an overridden ``get_loss`` takes the logarithm that NLLLoss needs, seen from one made-up row."""
    n = 2 if criterion.weight is None else len(criterion.weight)
    p = torch.full((1, n), 0.75 / max(n - 1, 1), dtype=dtype, device=device)
    p[0, 0] = 0.25
    y = torch.zeros(1, dtype=torch.int64, device=device)
    try:
        with torch.no_grad():
            value = float(net.get_loss(p, y, X=None, training=True))
            probs, logprobs = float(criterion(p.log(), y)), float(criterion(p, y))
    except Exception:  # whatever an override does with a row it did not expect: then it is not one of the two
        return "unknown"
    if math.isclose(value, probs, rel_tol=1e-3):
        return "categorical_probs"
    return "categorical_logprobs" if math.isclose(value, logprobs, rel_tol=1e-3) else "unknown"


def uniforms_shape_of(loss, output):
    """Per-row shape of the uniforms for one draw: one per label, or one per output element."""
    structure = loss.structures.get(output.ndim)
    if structure is not None and structure.kind.startswith("categorical"):
        return tuple(output.movedim(structure.axis, 1).shape[2:])
    return tuple(output.shape[2:] if loss.closed and loss.kind.startswith("categorical") else output.shape[1:])


def curvature_of(loss, output, y, x=None):
    """The output Hessian of every row's loss, as something that yields or draws columns of its root."""
    structure, kind = loss.structures.get(output.ndim), loss.kind
    if structure is not None:
        scale = structure.scale(loss.of_output(output, y, x), output)
        if structure.kind in ("diagonal", "laplace"):
            return DiagonalRoots(scale)
        return SoftmaxRoots(structure.probabilities(output), scale.clamp(min=0), structure.kind, structure.axis)
    if not loss.closed or loss.rule(output, y, x).startswith("row"):
        return MatrixRoots.from_loss(loss, output, y, x)
    if kind.startswith("categorical"):
        p = {"categorical": lambda: output.softmax(1), "categorical_logprobs": output.exp}.get(kind, lambda: output)()
        return SoftmaxRoots(p, loss.element_scale(output, y), kind)
    if y.shape != output.shape:  # broadcast targets: no closed form is worth its own case
        return MatrixRoots.from_loss(loss, output, y, x)
    scale = loss.element_scale(output, y)
    if kind == "bernoulli":  # d2/dz2 softplus(z) = s(z) s(-z), which keeps its precision where s(z) is near 1
        return DiagonalRoots(scale * output.sigmoid() * (-output).sigmoid())
    return DiagonalRoots(2 * scale if kind == "gaussian" else scale)


@dataclass
class SoftmaxRoots:
    """``s (diag(p) - p p^T)`` at every position, in the coordinates of the output.

    On logits ``b_c = sqrt(s p_c) (e_c - p)``; on probabilities ``sqrt(s p_c) / (p_c + eps) e_c`` (eps as skorch adds
    it) and on log-probabilities ``sqrt(s p_c) e_c``, which the (log-)softmax's own Jacobian turns into the same.

    Parameters
    ----------
    p : Tensor (B, C, *positions)
    scale : Tensor (B, *positions)
    kind : str
    axis : int
        Where the output has its classes.
    """

    p: torch.Tensor
    scale: torch.Tensor
    kind: str
    axis: int = 1

    def columns(self):
        n, n_classes = self.p.shape[:2]
        p, scale = self.p.reshape(n, n_classes, -1), self.scale.reshape(n, -1)
        eps = torch.finfo(p.dtype).eps
        for t in range(p.shape[2]):
            for c in range(n_classes):
                b = torch.zeros_like(p)
                root = (scale[:, t] * p[:, c, t]).sqrt()
                if self.kind == "categorical":
                    b[:, :, t] = -root[:, None] * p[:, :, t]
                    b[:, c, t] += root
                else:
                    b[:, c, t] = root / (p[:, c, t] + eps) if self.kind == "categorical_probs" else root
                yield b.reshape(self.p.shape).movedim(1, self.axis)

    def product(self, vector):
        """The matrix times a vector like the output."""
        v, scale = vector.movedim(self.axis, 1), self.scale.unsqueeze(1)
        if self.kind == "categorical":
            found = scale * (self.p * v - self.p * (self.p * v).sum(1, keepdim=True))
        elif self.kind == "categorical_probs":
            found = scale * self.p / (self.p + torch.finfo(self.p.dtype).eps) ** 2 * v
        else:
            found = scale * self.p * v
        return found.movedim(1, self.axis)

    def draw(self, uniforms):
        return self._drawn(uniforms).movedim(1, self.axis)

    def _drawn(self, uniforms):
        cdf = self.p.double().cumsum(1)  # float64: a float32 sum over many classes would never draw the last ones
        drawn = (cdf <= uniforms.unsqueeze(1) * cdf[:, -1:]).sum(1, keepdim=True).clamp(max=self.p.shape[1] - 1)
        one = torch.zeros_like(self.p).scatter(1, drawn, 1.0)
        root = self.scale.sqrt().unsqueeze(1)
        if self.kind == "categorical":
            return root * (one - self.p)
        return root * one / (self.p + torch.finfo(self.p.dtype).eps) if self.kind == "categorical_probs" else root * one


@dataclass
class DiagonalRoots:
    """A diagonal Hessian, given by its diagonal (B, ...)."""

    diagonal: torch.Tensor

    def columns(self):
        n = len(self.diagonal)
        root = self.diagonal.sqrt().reshape(n, -1)
        for c in range(root.shape[1]):
            b = torch.zeros_like(root)
            b[:, c] = root[:, c]
            yield b.reshape(self.diagonal.shape)

    def product(self, vector):
        """The matrix times a vector like the output."""
        return self.diagonal * vector

    def draw(self, uniforms):
        return self.diagonal.sqrt() * _signs(uniforms, self.diagonal.dtype)


@dataclass
class MatrixRoots:
    """Any positive semi-definite Hessian through a root of it: ``roots`` (B, D, D), columns last."""

    roots: torch.Tensor
    shape: tuple

    @classmethod
    def from_loss(cls, loss, output, y, x):
        n, size = len(output), output.shape[1:].numel()
        if size > _MAX_MATRIX:
            raise ValueError(
                f"the criterion's Hessian has no form that is known, and {size} x {size} per row are too many for a "
                'general one: use fisher="empirical"'
            )
        hessian = loss.hessians(output, y, x).reshape(n, size, -1).double()
        if not torch.isfinite(hessian).all():
            bad = (~torch.isfinite(hessian).reshape(n, -1).all(1)).nonzero().flatten().tolist()
            raise ValueError(f"the criterion's second derivative is not finite for rows {bad[:10]} of the batch")
        if n and not hessian.any():
            warn(
                "the criterion's second derivative in the output is zero on a batch (a piecewise linear criterion?): "
                'the curvature misses these rows; fisher="empirical" does not need it',
            )
        values, vectors = torch.linalg.eigh((hessian + hessian.mT) / 2)
        return cls((vectors * values.clamp(min=0).sqrt().unsqueeze(1)).to(output.dtype), tuple(output.shape))

    def columns(self):
        for c in range(self.roots.shape[2]):
            yield self.roots[:, :, c].reshape(self.shape)

    def product(self, vector):
        """The matrix times a vector like the output."""
        flat = vector.reshape(len(self.roots), -1, 1)
        return (self.roots @ (self.roots.mT @ flat)).reshape(self.shape)

    def draw(self, uniforms):
        signs = _signs(uniforms, self.roots.dtype).reshape(len(self.roots), -1, 1)
        return (self.roots @ signs).reshape(self.shape)


def _signs(uniforms, dtype):
    """Rademacher variables: of all laws with unit variance the one that makes ``b b^T`` vary least."""
    return torch.where(uniforms < 0.5, -1.0, 1.0).to(dtype)
