"""What a curvature is: an object of parameters that is fitted to a stream, and the fitted ``phi(H)``.

A new curvature is one class in one file: a subclass of :class:`Curvature` whose ``fit`` reads a
:class:`~sklearn_source.curvature.FisherStream` and gives a :class:`FittedCurvature`. Any instance can be given to a
method as ``curvature=``, wherever its class was written. The diagonal of H, from its definition::

    import torch
    from sklearn_source import SourceAttribution
    from sklearn_source.curvature import Basis, Curvature, EigenCurvature

    class SquaredGradients(Curvature):
        def __init__(self, *, fisher="auto"):
            self.fisher = fisher

        def fit(self, stream):
            totals = [torch.zeros(b.shape, dtype=torch.float64, device=stream.device) for b in stream.blocks]
            for c, weight in enumerate(stream.weights):  # the checkpoints' weights sum to one
                for batch in stream.columns(c):  # some rows
                    for total, columns in zip(totals, batch):  # block by block
                        for gradients in columns:  # one for every Fisher column
                            squares = gradients.matrix().double().square().sum(0)  # (groups, out, in)
                            total += weight / stream.n_rows * squares
            for total, penalty in zip(totals, stream.penalties):
                if penalty is not None:
                    total += penalty
            return EigenCurvature([Basis() for _ in totals], [total.to(stream.dtype) for total in totals])

    SourceAttribution(curvature=SquaredGradients(fisher="empirical"))

Three things make it a good citizen:

- It is a scikit-learn estimator: ``__init__`` stores its keyword arguments and does nothing else, ``fit`` writes no
  attribute. Then ``clone``, ``repr``, pickles and ``GridSearchCV(..., {"curvature__fisher": [...]})`` work.
- Attributes of its instances named ``fisher``, ``n_samples`` and ``cache_size`` choose its stream; see
  :class:`Curvature`.
- ``H`` is the curvature of the *mean* row loss: divide by ``stream.n_rows``. ``EigenCurvature`` fits whatever has an
  orthogonal basis per side of a block; everything else implements :class:`FittedCurvature`.

A name such as ``"ekfac"`` stands for a class of this package only: a line in ``_registry.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from os import PathLike
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from ..gradients import GradientEngine
from ..network import Network
from ..rows import Rows
from ..utils._compat import Interval, StrOptions
from ..utils._config import bytes_for
from ._fisher import FisherStream, Metric, choose_fisher
from ._fitted_curvature import FittedCurvature


class Curvature(BaseEstimator, ABC):
    """Base of all curvatures: parameters, and how H is estimated with them.

    Read more in the :ref:`User Guide <curvature>`.

    Attributes
    ----------
    fisher : {"auto", "exact", "sampled", "empirical"}
        Which gradients the stream gives. ``"auto"`` unless the instance has another.
    n_samples : int
        Draws per row for ``"sampled"``. 1 unless the instance has another.
    cache_size : int or "auto"
        Megabytes in which the stream keeps gradients between passes, ``"auto"`` for a share of the ``memory_budget``.
        0 unless the instance has another: for a curvature that needs one pass, keeping saves nothing.
    memory : str, path, joblib.Memory or None
        Where the curvatures of this package keep their statistics. One of another package is never kept: a change of
        its code could not be seen.
    coupling : {"layers", "krylov"} or None
        How a block-diagonal form is corrected across its blocks once it is fitted: see :class:`EKFAC`. None unless the
        instance has another; of no consequence where the fitted form couples its blocks itself.
    n_iter : int
        Iterations of ``coupling="krylov"``. 10 unless the instance has another.
    max_rows : int, "auto" or None
        Fisher columns that blocks are coupled by, and that stand for H where rows are removed or changed. ``"auto"``
        unless the instance has another.
    """

    fisher = "auto"
    n_samples = 1
    cache_size: int | str = 0
    memory: str | PathLike | joblib.Memory | None = None
    coupling: str | None = None
    n_iter = 10
    max_rows: int | str | None = "auto"
    _parameter_constraints = {
        "fisher": [StrOptions({"auto", "exact", "sampled", "empirical"})],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "cache_size": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "memory": [None, str, PathLike, joblib.Memory],
        "coupling": [None, StrOptions({"layers", "krylov"})],
        "n_iter": [Interval(Integral, 1, None, closed="left")],
        "max_rows": [None, StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    }

    @abstractmethod
    def fit(self, stream: FisherStream) -> FittedCurvature:
        """Estimate H.

        Parameters
        ----------
        stream : FisherStream
            The gradients that H is an average of, batch by batch, in as many passes as needed.

        Returns
        -------
        fitted : FittedCurvature
            Of ``sum_c w_c H(theta_c)`` and the stream's penalties.

        Raises
        ------
        ValueError
            If the gradients are not finite, or the problem is too large for this curvature.
        """

    def stream(
        self,
        network: Network,
        engine: GradientEngine,
        rows: Rows,
        index: NDArray[np.int64],
        checkpoints: Sequence[Any],
        weights: ArrayLike,
        *,
        batch_size: Callable[[int], int],
        keys: NDArray[np.uint64],
        identified: bool,
        seed: int,
        progress: Callable[..., Iterable[int]] | None = None,
        metric: Metric | None = None,
        row_weights: NDArray[np.float64] | None = None,
        n_samples: int | None = None,
    ) -> FisherStream:
        """The stream that :meth:`fit` wants, by ``fisher``, ``n_samples`` and ``cache_size``.

        Parameters
        ----------
        network : Network
            The private copy of the net, whose weights are switched.
        engine : GradientEngine
            What pulls gradients back through it.
        rows : Rows
            The training rows.
        index : ndarray of int of shape (n_rows,)
            Those averaged over.
        checkpoints : sequence
            Each with ``step``, ``parameters`` and ``buffers``.
        weights : array-like of shape (n_checkpoints,)
            Of the checkpoints, summing to one.
        batch_size : callable
            Rows that can be taken at once, given the number of Fisher columns of each.
        keys : ndarray of uint64, shape (n_train,)
            What a row's random draws depend on.
        identified : bool
            Whether ``keys`` are fingerprints of the rows' contents. Without them nothing can be kept for another fit.
        seed : int
            Of the random draws.
        progress : callable, optional
            Wraps the iterator over batches: ``progress(iterable, desc=...)``.
        metric : Metric, optional
            The coordinates that the gradients are given in, of an adaptive optimizer.
        row_weights : ndarray of shape (n_rows,), optional
            How much each row counts in the mean; their own mean is one.
        n_samples : int, optional
            Draws per row where targets are drawn, in place of the parameter of that name.

        Returns
        -------
        stream : FisherStream
            Nothing is computed before it is read.
        """
        probe, _ = rows.batch(index[:1])
        network.load(checkpoints[-1].parameters, checkpoints[-1].buffers)
        with torch.no_grad():
            n_roots = network.forward_as_trained(probe).shape[1:].numel()
        fisher = choose_fisher(self.fisher, network, n_roots)
        n_samples = self._n_draws(len(index) * len(checkpoints)) if n_samples is None else n_samples
        cached = bytes_for("cached_gradients") if self.cache_size == "auto" else int(self.cache_size) * 2**20
        n_columns = {"exact": n_roots, "sampled": n_samples}.get(fisher, 1)
        return FisherStream(
            network, engine, rows, index, checkpoints, weights, fisher=fisher, n_samples=n_samples, keys=keys,
            seed=seed, batch_size=batch_size(n_columns), cache_bytes=cached, progress=progress,
            metric=metric, identified=identified, row_weights=row_weights,
        )  # fmt: skip

    def _n_draws(self, n_rows):
        """How often targets are drawn for each of so many rows, at all checkpoints together."""
        return self.n_samples
