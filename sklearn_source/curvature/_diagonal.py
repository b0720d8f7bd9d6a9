"""The diagonal of the Gauss-Newton matrix."""

from __future__ import annotations

from os import PathLike
from typing import Literal

import joblib

from ._base import Curvature
from ._cache import kept_fit
from ._eigen import Basis, EigenCurvature
from ._eigenvalues import corrected_eigenvalues
from ._fisher import FisherStream


class Diagonal(Curvature):
    """The diagonal alone: the mean squared gradient of every parameter.

    Read more in the :ref:`User Guide <curvature>`.

    Parameters
    ----------
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
        Where whole curvatures are kept for later fits.

    Notes
    -----
    Cost: one forward pass and one backward pass per Fisher column over the rows for every checkpoint.
    """

    def __init__(
        self,
        *,
        fisher: str = "auto",
        n_samples: int = 1,
        coupling: Literal["layers", "krylov"] | None = "layers",
        n_iter: int = 10,
        max_rows: int | Literal["auto"] | None = "auto",
        memory: str | PathLike | joblib.Memory | None = None,
    ):
        self.fisher = fisher
        self.n_samples = n_samples
        self.coupling = coupling
        self.n_iter = n_iter
        self.max_rows = max_rows
        self.memory = memory

    def fit(self, stream: FisherStream) -> EigenCurvature:
        """One pass over the stream; see :meth:`Curvature.fit`."""
        return kept_fit(self._fit, self, stream)

    def _fit(self, stream):
        bases = [Basis() for _ in stream.blocks]
        return EigenCurvature(bases, [v.to(stream.dtype) for v in corrected_eigenvalues(stream, bases)])
