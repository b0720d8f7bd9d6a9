"""Hessians of row losses in the outputs, each as something that yields or draws columns of a root of it.

All have ``columns()``, an iterator over tensors like the output with ``sum_c b_c b_c^T`` the Hessian of every row;
``draw(uniforms)``, one random column with the same expectation from uniforms (B, *uniforms_shape) in [0, 1); and
``product(vector)``, the Hessian times a vector like the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..utils._warnings import warn

_MAX_MATRIX = 4096  # outputs of a row whose full Hessian is still formed


@dataclass
class SoftmaxHessian:
    """``s (diag(p) - p p^T)`` at every position, in the coordinates of the output.

    On logits ``b_c = sqrt(s p_c) (e_c - p)``; on probabilities ``sqrt(s p_c) / (p_c + eps) e_c`` (eps as skorch adds
    it) and on log-probabilities ``sqrt(s p_c) e_c``, which the (log-)softmax's own Jacobian turns into the same.

    Parameters
    ----------
    p : Tensor (B, C, *positions)
    scale : Tensor (B, *positions)
    axis : int
        Where the output has its classes.
    centred : bool
        Whether ``p`` is taken off the drawn class, as on logits.
    stretch : Tensor like ``p``, optional
        What the drawn class is multiplied by, as on probabilities.
    """

    p: torch.Tensor
    scale: torch.Tensor
    axis: int = 1
    centred: bool = False
    stretch: torch.Tensor | None = None

    @property
    def uniforms_shape(self):
        """One uniform per label."""
        return tuple(self.p.shape[2:])

    def columns(self):
        n, n_classes = self.p.shape[:2]
        p, scale = self.p.reshape(n, n_classes, -1), self.scale.reshape(n, -1)
        stretch = None if self.stretch is None else self.stretch.reshape(p.shape)
        for t in range(p.shape[2]):
            for c in range(n_classes):
                b = torch.zeros_like(p)
                root = (scale[:, t] * p[:, c, t]).sqrt()
                if self.centred:
                    b[:, :, t] = -root[:, None] * p[:, :, t]
                b[:, c, t] += root if stretch is None else root * stretch[:, c, t]
                yield b.reshape(self.p.shape).movedim(1, self.axis)

    def product(self, vector):
        v = vector.movedim(self.axis, 1)
        weighted = self.p * v if self.stretch is None else self.p * self.stretch.square() * v
        if self.centred:
            weighted = weighted - self.p * weighted.sum(1, keepdim=True)
        return (self.scale.unsqueeze(1) * weighted).movedim(1, self.axis)

    def draw(self, uniforms):
        """A class from the predictive distribution at every position."""
        cdf = self.p.double().cumsum(1)  # float64: a float32 sum over many classes would never draw the last ones
        drawn = (cdf <= uniforms.unsqueeze(1) * cdf[:, -1:]).sum(1, keepdim=True).clamp(max=self.p.shape[1] - 1)
        column = torch.zeros_like(self.p).scatter(1, drawn, 1.0)
        if self.centred:
            column = column - self.p
        if self.stretch is not None:
            column = column * self.stretch
        return (self.scale.sqrt().unsqueeze(1) * column).movedim(1, self.axis)


@dataclass
class DiagonalHessian:
    """A diagonal one, given by its diagonal (B, ...)."""

    diagonal: torch.Tensor

    @property
    def uniforms_shape(self):
        """One uniform per output."""
        return tuple(self.diagonal.shape[1:])

    def columns(self):
        n = len(self.diagonal)
        root = self.diagonal.sqrt().reshape(n, -1)
        for c in range(root.shape[1]):
            b = torch.zeros_like(root)
            b[:, c] = root[:, c]
            yield b.reshape(self.diagonal.shape)

    def product(self, vector):
        return self.diagonal * vector

    def draw(self, uniforms):
        return self.diagonal.sqrt() * _signs(uniforms, self.diagonal.dtype)


@dataclass
class DenseHessian:
    """Any positive semi-definite one through a root of it: ``roots`` (B, D, D), columns last."""

    roots: torch.Tensor
    shape: tuple

    @classmethod
    def from_matrices(cls, matrices, output):
        """From the Hessians (B, *row, *row) of rows' losses in ``output``; negative eigenvalues are set to zero."""
        n, size = len(output), output.shape[1:].numel()
        matrices = matrices.reshape(n, size, -1).double()
        if not torch.isfinite(matrices).all():
            bad = (~torch.isfinite(matrices).reshape(n, -1).all(1)).nonzero().flatten().tolist()
            raise ValueError(f"the criterion's second derivative is not finite for rows {bad[:10]} of the batch")
        if n and not matrices.any():
            warn(
                "the criterion's second derivative in the output is zero on a batch (a piecewise linear criterion?): "
                'the curvature misses these rows; fisher="empirical" does not need it',
            )
        values, vectors = torch.linalg.eigh((matrices + matrices.mT) / 2)
        return cls((vectors * values.clamp(min=0).sqrt().unsqueeze(1)).to(output.dtype), tuple(output.shape))

    @property
    def uniforms_shape(self):
        """One uniform per output."""
        return self.shape[1:]

    def columns(self):
        for c in range(self.roots.shape[2]):
            yield self.roots[:, :, c].reshape(self.shape)

    def product(self, vector):
        flat = vector.reshape(len(self.roots), -1, 1)
        return (self.roots @ (self.roots.mT @ flat)).reshape(self.shape)

    def draw(self, uniforms):
        signs = _signs(uniforms, self.roots.dtype).reshape(len(self.roots), -1, 1)
        return (self.roots @ signs).reshape(self.shape)


def require_dense(output):
    """Refuse outputs of which a row's full Hessian would be too large to form."""
    size = output.shape[1:].numel()
    if size > _MAX_MATRIX:
        raise ValueError(
            f"the criterion's Hessian has no form that is known, and {size} x {size} per row are too many for a "
            'general one: use curvature=EKFAC(fisher="empirical")'
        )


def _signs(uniforms, dtype):
    """Rademacher variables: of all laws with unit variance the one that makes ``b b^T`` vary least."""
    return torch.where(uniforms < 0.5, -1.0, 1.0).to(dtype)
