"""EK-FAC: Kronecker-factored eigenbases, eigenvalues measured in them (George et al. 2018)."""

from __future__ import annotations

import functools
from os import PathLike
from typing import Literal

import joblib

from ..utils._compat import StrOptions
from ._base import Curvature
from ._cache import kept_fit, kept_moments
from ._covariances import averaged_moments, eigenbases, whole_eigenvalues
from ._eigen import EigenCurvature
from ._eigenvalues import corrected_eigenvalues
from ._fisher import FisherStream


class EKFAC(Curvature):
    """Eigenvalue-corrected Kronecker factorisation: block diagonal, one block per layer.

    The covariances of a layer's inputs and of its output gradients give an eigenbasis; the eigenvalues are measured
    anew in this basis, as the mean squared coordinates of whole per-row gradients.

    Read more in the :ref:`User Guide <curvature>`.

    Parameters
    ----------
    basis : {"kfac", "shampoo"}, default="kfac"
        Where the eigenbases come from: ``"kfac"``, covariances of a layer's inputs and of its output gradients, or
        ``"shampoo"``, ``E[G^T G]`` and ``E[G G^T]`` of whole per-row gradients G, as always where a layer has no such
        factors and for adaptive optimizers.
    fisher : {"auto", "exact", "sampled", "empirical"}, default="auto"
        Which gradients H is an average of: exact columns of the Gauss-Newton root, targets sampled from the model, or
        the true targets. ``"auto"``: exact for at most 16 outputs per row, else sampled.
    n_samples : int, default=1
        Draws per row for ``fisher="sampled"``. Their seed is the ``random_state`` of the method.
    cache_size : int or "auto", default="auto"
        Megabytes for keeping per-row gradients between the two passes over the rows. ``"auto"``: half of the
        ``memory_budget`` of :func:`~sklearn_source.config_context`, 1024 at its default.
    coupling : {"layers", "krylov"} or None, default="layers"
        How layers are coupled, without which scores come out several times too large on networks of several.
        ``"layers"``: how far to go along each layer's part of a solution is found from Fisher columns of all layers at
        once. ``"krylov"``: ``n_iter`` rounds of further directions. None: every layer for itself, as in [1]_.
    n_iter : int, default=10
        Rounds of ``coupling="krylov"``, each two passes over the columns and one vector of all parameters per query.
    max_rows : int, "auto" or None, default="auto"
        Fisher columns, about, that layers are coupled by, drawn from all rows and checkpoints by their share of the
        curvature. ``"auto"``: 1,024 for ``"layers"``, 4,096 for ``"krylov"``, fewer where these would take more than
        half a gigabyte. None: all, in one pass over the rows for each product. ``predict_reweighting`` and
        ``predict_relabeling`` solve by as many (``"auto"``: 4,096; None: at most 12,000).
    memory : str, path or joblib.Memory, optional
        Where statistics are kept for later fits: the covariances of every checkpoint, which do not depend on a
        training's segments, and whole curvatures.

    See Also
    --------
    KFAC : The same basis, the eigenvalues being products of those of the covariances.

    Notes
    -----
    ``H = Q diag(Lambda) Q^T`` with ``Q = Q_S (x) Q_A`` and ``Lambda = mean_n [Q_S^T G_n Q_A]^2`` ([1]_; for language
    models, [2]_). Covariances and eigenvalues are both averaged over the checkpoints.

    Cost: one forward pass and one backward pass per Fisher column over the rows for every checkpoint, twice where the
    gradients do not fit into ``cache_size``; two eigendecompositions per layer. A side of a layer wider than 12,288
    keeps its own coordinates.

    References
    ----------
    .. [1] George, Laurent, Bouthillier, Ballas, Vincent (2018), "Fast Approximate Natural Gradient Descent in a
       Kronecker-factored Eigenbasis", NeurIPS.
    .. [2] Grosse et al. (2023), "Studying Large Language Model Generalization with Influence Functions",
       arXiv:2308.03296.

    Examples
    --------
    >>> from sklearn_source import SourceAttribution
    >>> from sklearn_source.curvature import EKFAC
    >>> SourceAttribution(curvature=EKFAC(basis="shampoo")).get_params()["curvature__fisher"]
    'auto'
    """

    _parameter_constraints = {**Curvature._parameter_constraints, "basis": [StrOptions({"kfac", "shampoo"})]}

    def __init__(
        self,
        *,
        basis: str = "kfac",
        fisher: str = "auto",
        n_samples: int = 1,
        cache_size: int | Literal["auto"] = "auto",
        coupling: Literal["layers", "krylov"] | None = "layers",
        n_iter: int = 10,
        max_rows: int | Literal["auto"] | None = "auto",
        memory: str | PathLike | joblib.Memory | None = None,
    ):
        self.basis = basis
        self.fisher = fisher
        self.n_samples = n_samples
        self.cache_size = cache_size
        self.coupling = coupling
        self.n_iter = n_iter
        self.max_rows = max_rows
        self.memory = memory

    def fit(self, stream: FisherStream) -> EigenCurvature:
        """Two passes over the stream; see :meth:`Curvature.fit`."""
        return kept_fit(self._fit, self, stream)

    def _fit(self, stream):
        stream.keeps_matrices = stream.metric is None
        bases, values = eigenbases(averaged_moments(stream, functools.partial(kept_moments, self)), stream.dtype)
        eigenvalues = corrected_eigenvalues(stream, bases, whole_eigenvalues(stream, values, self.basis))
        return EigenCurvature(bases, [v.to(stream.dtype) for v in eigenvalues])
