"""K-FAC: Kronecker products of two covariances per layer (Martens & Grosse 2015)."""

from __future__ import annotations

import functools
from os import PathLike
from typing import Literal

import joblib
import torch

from ..utils._compat import StrOptions
from ._base import Curvature
from ._cache import kept_fit, kept_moments
from ._covariances import MAX_BASIS, averaged_moments, eigenbases
from ._eigen import EigenCurvature
from ._fisher import FisherStream


class KFAC(Curvature):
    """Kronecker factorisation: block diagonal, one block per layer, the product of two covariances.

    Read more in the :ref:`User Guide <curvature>`.

    Parameters
    ----------
    basis : {"kfac", "shampoo"}, default="kfac"
        Which two: ``"kfac"``, those of a layer's inputs and of its output gradients, or ``"shampoo"``, ``E[G^T G]`` and
        ``E[G G^T]`` of whole per-row gradients G, as always where a layer has no such factors and for adaptive
        optimizers.
    fisher : {"auto", "exact", "sampled", "empirical"}, default="auto"
        Which gradients H is an average of: exact columns of the Gauss-Newton root, targets sampled from the model, or
        the true targets. ``"auto"``: exact for at most 16 outputs per row, else sampled.
    n_samples : int, default=1
        Draws per row for ``fisher="sampled"``. Their seed is the ``random_state`` of the method.
    coupling : {"layers", "krylov"} or None, default="layers"
        How layers are coupled, without which scores come out several times too large on networks of several.
        ``"layers"``: how far to go along each layer's part of a solution is found from Fisher columns of all layers at
        once. ``"krylov"``: ``n_iter`` rounds of further directions. None: every layer for itself.
    n_iter : int, default=10
        Rounds of ``coupling="krylov"``, each two passes over the columns and one vector of all parameters per query.
    max_rows : int, "auto" or None, default="auto"
        Fisher columns, about, that layers are coupled by, drawn from all rows and checkpoints by their share of the
        curvature. ``"auto"``: 1,024 for ``"layers"``, 4,096 for ``"krylov"``, fewer where these would take more than
        half a gigabyte. None: all, in one pass over the rows for each product. ``predict_reweighting`` and
        ``predict_relabeling`` solve by as many (``"auto"``: 4,096; None: at most 12,000).
    memory : str, path or joblib.Memory, optional
        Where statistics are kept for later fits: the covariances of every checkpoint, which do not depend on a
        training's segments, and whole curvatures. :class:`EKFAC` shares the covariances.

    See Also
    --------
    EKFAC : The same basis, the eigenvalues measured in it.

    Notes
    -----
    ``H = A (x) S`` with ``A`` averaged over rows and positions and ``S`` summed over positions and averaged over rows,
    as in [1]_ and, for positions, K-FAC-expand of [2]_. Covariances of whole gradients make
    ``E[G G^T] (x) E[G^T G] / E[|G|^2]``, which has the block's trace. Cost: one forward pass and one backward pass per
    Fisher column over the rows for every checkpoint; two eigendecompositions per layer.

    References
    ----------
    .. [1] Martens, Grosse (2015), "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", ICML.
    .. [2] Eschenhagen, Immer, Turner, Schneider, Hennig (2023), "Kronecker-Factored Approximate Curvature for Modern
       Neural Network Architectures", NeurIPS.
    """

    _parameter_constraints = {**Curvature._parameter_constraints, "basis": [StrOptions({"kfac", "shampoo"})]}

    def __init__(
        self,
        *,
        basis: str = "kfac",
        fisher: str = "auto",
        n_samples: int = 1,
        coupling: Literal["layers", "krylov"] | None = "layers",
        n_iter: int = 10,
        max_rows: int | Literal["auto"] | None = "auto",
        memory: str | PathLike | joblib.Memory | None = None,
    ):
        self.basis = basis
        self.fisher = fisher
        self.n_samples = n_samples
        self.coupling = coupling
        self.n_iter = n_iter
        self.max_rows = max_rows
        self.memory = memory

    def fit(self, stream: FisherStream) -> EigenCurvature:
        """One pass over the stream; see :meth:`Curvature.fit`.

        Raises
        ------
        ValueError
            Where a layer has a side wider than 12,288, or gradients that are not finite.
        """
        return kept_fit(self._fit, self, stream)

    def _fit(self, stream):
        whole = self.basis != "kfac" or stream.metric is not None
        bases, values = eigenbases(averaged_moments(stream, functools.partial(kept_moments, self)), stream.dtype)
        eigenvalues = []
        for block, (s_values, a_values) in zip(stream.blocks, values):
            if s_values is None or a_values is None:
                raise ValueError(
                    f"curvature='kfac' needs both covariances of {block.name!r}, whose {block.shape[1]} x "
                    f"{block.shape[2]} matrix has a side wider than {MAX_BASIS}: use curvature='ekfac' or 'diagonal', "
                    "or leave it out with layers="
                )
            product = s_values[:, :, None] * a_values[:, None, :]
            if whole or not block.has_factors:
                trace = s_values.sum(1)[:, None, None]
                product = product / trace.clamp_min(torch.finfo(trace.dtype).tiny)
            eigenvalues.append(product.to(stream.dtype))
        return EigenCurvature(bases, eigenvalues)
