"""The directions that a block-diagonal curvature finds for some vectors, and the whole curvature on them."""

from __future__ import annotations

import torch
from sklearn.exceptions import ConvergenceWarning

from ..utils._warnings import warn
from ._directions import Directions
from ._spectral import SpectralFunction, inverse

# A solve that leaves more than this share of its right-hand side is said.
_STALLED = 0.5
# One ridge solves; what is an integral over the training asks for more once that equation is solved.
_RIDGES = (1.0, 10.0, 100.0)


class CoupledSpace:
    """The directions of some vectors, orthonormal within every block, and H on them.

    A round adds one direction per block. What is small is in float64, per vector: coefficients (n, D), D directions
    round by round and block by block, and H, M on them (n, D, D).

    Parameters
    ----------
    curvature : CoupledCurvature
    encoded : list of tensor (n, groups, out, in), one per block
        The vectors.
    phi : SpectralFunction
        Decides on the space.
    """

    def __init__(self, curvature, encoded, phi):
        self._curvature, self._encoded, self._phi = curvature, encoded, phi
        most, device = curvature.n_iter + 1, encoded[0].device
        self._directions = [Directions(vectors, most) for vectors in encoded]
        n, n_blocks = len(encoded[0]), len(encoded)
        self._pushed = encoded[0].new_empty((n, most * n_blocks, curvature.rows.n_columns))
        self._inner = torch.zeros(n, 0, dtype=torch.float64, device=device)  # with the vectors themselves
        self._H = torch.zeros(n, 0, 0, dtype=torch.float64, device=device)
        self._residual = self._M = self._shares = None
        ridges = [factor * phi.ridge for factor in _RIDGES] if phi.ridge else [0.0]
        self._ridges = torch.tensor(ridges, dtype=torch.float64, device=device)
        self._level = torch.zeros(n, dtype=torch.long, device=device)
        self._add(curvature.base.scale(phi, encoded))

    @property
    def tensors(self):
        """The large ones, for counting memory."""
        return [*(directions.held for directions in self._directions), self._pushed]

    def extend(self):
        """Add the directions in which M would have what is left of the equation solved; False where nothing is.

        Every vector goes its own way, whichever others it comes with: first the equation with the function's ridge,
        then those with larger ones.
        """
        ridges = self._ridges[self._level]
        residual = self._remainder(ridges)
        solved = self._residual < 1e2 * torch.finfo(residual[0].dtype).eps
        if bool((solved & (self._level == len(self._ridges) - 1)).all()):
            return False
        for ridge in ridges.unique():
            mine = ~solved & (ridges == ridge)
            solve = SpectralFunction(self._phi.function, self._phi.shifts, float(ridge)).resolvent
            if bool(mine.all()):
                residual = self._curvature.base.scale_(solve, residual)
            elif bool(mine.any()):
                for total, part in zip(residual, self._curvature.base.scale(solve, [r[mine] for r in residual])):
                    total[mine] = part
        if bool(solved.any()):
            for total in residual:
                total[solved] = 0.0
        self._add(residual)
        self._level = (self._level + solved.long()).clamp(max=len(self._ridges) - 1)
        return True

    def report(self):
        """Warn where the equation is far from solved: of the vector of which most was left before the last round."""
        if self._residual is None or not len(self._residual):
            return
        worst = int(torch.where(self._level == 0, self._residual, 0.0).argmax())
        self._remainder(self._ridges[:1], slice(worst, worst + 1))
        left = float(self._residual)
        if left > _STALLED:
            warn(
                f"the coupled solve left a relative residual of {left:.1g} after n_iter={self._curvature.n_iter} "
                "iterations: raise n_iter (or the damping of influence functions), or take coupling='layers'",
                ConvergenceWarning,
            )

    def project(self, function):
        """``V function(V^T (H + shift) V) V^T v``, one tensor per block."""
        return self._combined(self._coefficients(function))

    def share(self):
        """``V a`` with ``V^T (H + shift + ridge) V a = V^T v``: how far to go along each block's part of ``phi(M) v``.

        The ridge of a block is the one with which its part of ``phi(M) v`` solves this for H = M: none is needed where
        phi is an inverse, about ``1/h`` where it is an integral over the training.
        """
        met = self._of_base().diagonal(dim1=1, dim2=2)
        sizes = self._sizes.clamp_min(torch.finfo(torch.float64).tiny)
        ridge = (self._inner / sizes - met).clamp_min(0.0)
        values, vectors = torch.linalg.eigh(self._H + torch.diag_embed(ridge))
        solved = inverse(values.clamp_min(0)).unsqueeze(2) * (vectors.mT @ self._inner.unsqueeze(2))
        self._shares = (vectors @ solved).squeeze(2)
        return self._combined(self._shares)

    def paced(self, phi):
        """``phi`` of M at the pace of H: ``phi(b M) v`` with ``b = a^T H_V a / a^T M_V a``, a of :meth:`share`.

        Where every layer corrects the whole residual, H is along the solution as many times M as there are layers, and
        wears it down as much faster.
        """
        shifts = torch.tensor(self._phi.shifts, dtype=torch.float64, device=self._H.device)
        squares = self._shares.square()
        of_shifts = (squares * shifts).sum(1)
        whole = torch.einsum("nb,nbc,nc->n", self._shares, self._H, self._shares) - of_shifts
        apart = (squares * self._of_base().diagonal(dim1=1, dim2=2)).sum(1) - of_shifts
        tiny = torch.finfo(torch.float32).tiny
        paces = torch.where(apart > tiny, whole / apart.clamp_min(tiny), 1.0).clamp_min(tiny)
        total = [torch.empty_like(v) for v in self._encoded]
        for number, pace in enumerate(paces.tolist()):  # a vector's own, whichever others it comes with
            faster = self._curvature.base.in_metric([pace] * len(total))
            for u, own in zip(total, faster.scale(phi, [v[number : number + 1] for v in self._encoded])):
                u[number] = own[0]
        return total

    def correct(self, phi):
        """``phi(M) v + V [phi(H_V) - phi(M_V)] V^T v``."""
        change = self._coefficients(lambda values: phi.function(values, None))
        change -= self._coefficients(lambda values: phi.function(values, None), matrix=self._of_base())
        outside = self._curvature.base.scale(phi, self._encoded)
        return [u.add_(v) for u, v in zip(self._combined(change), outside)]

    def _add(self, vectors):
        found = [directions.add(v.flatten(1)) for directions, v in zip(self._directions, vectors)]
        self._sizes = torch.stack(found, dim=1).double()  # of the latest directions
        first, self._M = self._inner.shape[1], None
        latest = [directions.latest(v.shape) for directions, v in zip(self._directions, self._encoded)]
        self._inner = torch.cat([self._inner, self._dots(latest, self._encoded)], dim=1)
        for place, own in enumerate(self._curvature.push(latest), start=first):
            self._pushed[:, place] = own
        self._grow(latest)

    def _dots(self, first, second):
        """(n, blocks) inner products; sums of pairs, accurate in any type."""
        total = torch.zeros(len(self._encoded[0]), len(first), dtype=torch.float64, device=first[0].device)
        for block, (directions, u, v) in enumerate(zip(self._directions, first, second)):
            for some in directions.chunks():
                total[some, block] = (u[some] * v[some]).flatten(1).sum(1).double()
        return total

    def _grow(self, latest):
        """Fill in the lines and columns of ``V^T (H + shift) V`` that belong to new directions."""
        old, size = self._H.shape[1], self._inner.shape[1]
        matrix = self._H.new_zeros((len(self._H), size, size))
        matrix[:, :old, :old] = self._H
        for number, pushed in enumerate(self._pushed[:, :size]):
            pushed = pushed.double()
            matrix[number, old:] = pushed[old:] @ pushed.T
        for block, (vectors, directions) in enumerate(zip(latest, self._directions)):
            line = old + block
            matrix[:, line, line] += self._phi.shifts[block]
            penalty = self._curvature.penalised(block, vectors)
            if penalty is not None:
                for some in directions.chunks():
                    matrix[some, line, block :: len(latest)] += directions.inner(some, penalty[some].flatten(1))
        matrix[:, :old, old:] = matrix[:, old:, :old].mT
        self._H = matrix

    def _of_base(self):
        """``V^T (M + shift) V``, made once for all that ask."""
        if self._M is not None:
            return self._M
        matrix = torch.zeros_like(self._H)
        shifts, n_blocks = self._phi.shifts, len(self._encoded)
        widest = max(self._directions, key=lambda directions: directions.held.shape[2])
        for some in widest.chunks():
            for number in range(len(widest)):
                vectors = [d.held[some, number].view(-1, *e.shape[1:]) for d, e in zip(self._directions, self._encoded)]
                products = self._curvature.base.scale(lambda values, block: values + shifts[block], vectors)
                for block, (directions, product) in enumerate(zip(self._directions, products)):
                    own = directions.inner(some, product.flatten(1))
                    matrix[some, number * n_blocks + block, block::n_blocks] = own.double()
        self._M = matrix
        return matrix

    def _coefficients(self, function, some=slice(None), matrix=None):
        """``function(matrix) V^T v`` for some vectors: (m, D)."""
        values, vectors = torch.linalg.eigh((self._H if matrix is None else matrix)[some])
        scaled = function(values.clamp_min(0)).unsqueeze(2) * (vectors.mT @ self._inner[some].unsqueeze(2))
        return (vectors @ scaled).squeeze(2)

    def _combined(self, coefficients):
        """``V c``, one tensor per block."""
        total = [torch.empty_like(v) for v in self._encoded]
        for block, (directions, vectors) in enumerate(zip(self._directions, total)):
            own = coefficients[:, block :: len(total)]
            for some in directions.chunks():
                vectors[some] = directions.combined(some, own[some]).view_as(vectors[some])
        return total

    def _remainder(self, ridges, some=slice(None)):
        """``v - (H + shift + ridge) x`` for the x found so far, a ridge for every one of some vectors."""
        coefficients = self._coefficients(lambda values: inverse(values + ridges[:, None]), some)
        pushed = self._pushed[some, : coefficients.shape[1]]
        weights = torch.bmm(coefficients.to(pushed.dtype).unsqueeze(1), pushed).squeeze(1)
        residual = [r.contiguous() for r in self._curvature.pull(weights)]  # written into
        left, size = torch.zeros_like(ridges), torch.zeros_like(ridges)
        offset = some.start or 0
        for block, (directions, v, r) in enumerate(zip(self._directions, self._encoded, residual)):
            own = coefficients[:, block :: len(residual)]
            added = (self._phi.shifts[block] + ridges).to(r.dtype)
            for part in directions.chunks(len(r)):
                x = directions.combined(slice(part.start + offset, part.stop + offset), own[part])
                whole, given = r[part].flatten(1), v[part.start + offset : part.stop + offset].flatten(1)
                whole.neg_().add_(given).sub_(x.mul(added[part, None]))
                penalty = self._curvature.penalised(block, x.view_as(r[part]))
                if penalty is not None:
                    whole.sub_(penalty.flatten(1))
                left[part] += whole.norm(dim=1).double().square()
                size[part] += given.norm(dim=1).double().square()
        self._residual = (left / size.clamp_min(torch.finfo(torch.float64).tiny)).sqrt()
        return residual
