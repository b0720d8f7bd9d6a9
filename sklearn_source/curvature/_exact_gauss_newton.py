"""The whole Gauss-Newton matrix of a small problem."""

from __future__ import annotations

from os import PathLike

import joblib
import torch

from ._base import Curvature
from ._cache import kept_fit
from ._fisher import FisherStream, require_finite
from ._fisher_sample import MAX_ROOT_ROWS, FisherSample, draws_that_fill
from ._gram import GramCurvature
from ._sampled_gauss_newton import SampledGaussNewton


class ExactGaussNewton(Curvature):
    """The whole matrix, all layers coupled: for small problems, and for checking the others.

    Read more in the :ref:`User Guide <curvature>`.

    Parameters
    ----------
    fisher : {"auto", "exact", "sampled", "empirical"}, default="auto"
        Which gradients H is an average of: exact columns of the Gauss-Newton root, targets sampled from the model, or
        the true targets. ``"auto"``: exact for at most 16 outputs per row, else sampled.
    n_samples : int, default=1
        Draws per row for ``fisher="sampled"``, more where ``max_rows`` takes more. Their seed is the ``random_state``
        of the method.
    max_rows : int, optional
        Fisher columns, about, that stand for all, drawn from all rows and checkpoints by their share of the curvature:
        some thousand are most of what there is in a network that fits. None: all of them. ``predict_reweighting`` and
        ``predict_relabeling`` solve by as many (None: at most 12,000).
    memory : str, path or joblib.Memory, optional
        Where whole curvatures are kept for later fits.

    Notes
    -----
    ``H = R^T R`` with one row of ``R`` for every training row, Fisher column and checkpoint, through the Gram matrix
    ``R R^T``. One damping, and one product of weight decay and learning rate, for all parameters. Cost: dense per-row
    gradients of all columns, then the cube of their number, which may be 12,000 at most. With ``max_rows``: one forward
    pass over the rows, a gradient for every column drawn, the cube of ``max_rows``, and ``2 max_rows`` products with
    all parameters for each query; no memory= then.
    """

    def __init__(
        self,
        *,
        fisher: str = "auto",
        n_samples: int = 1,
        max_rows: int | None = None,
        memory: str | PathLike | joblib.Memory | None = None,
    ):
        self.fisher = fisher
        self.n_samples = n_samples
        self.max_rows = max_rows
        self.memory = memory

    def fit(self, stream: FisherStream) -> GramCurvature | SampledGaussNewton:
        """One pass over the stream; see :meth:`Curvature.fit`.

        Raises
        ------
        ValueError
            If the Gram matrix would have more than 12,000 rows, or gradients are not finite.
        """
        if self.max_rows is None:
            return kept_fit(self._fit, self, stream)
        sample = FisherSample(stream, self.max_rows)
        batches = [[column for (column,) in batch] for batch, _ in sample.batches()]
        return SampledGaussNewton(batches, sample.by_chance, [block.shape for block in stream.blocks], stream.penalties)

    def _n_draws(self, n_rows):
        """As many as fill the columns."""
        return max(self.n_samples, draws_that_fill(self.max_rows or 1, n_rows))

    def _fit(self, stream):
        penalty = [] if stream.metric is None else [d for d in stream.metric.penalty if d is not None]
        # A penalty is a root of its own: one further row for every parameter.
        n_parameters = sum(block.size for block in stream.blocks)
        extra = n_parameters if penalty else 0
        rows = []
        for c, weight in enumerate(stream.weights):
            for batch in stream.columns(c):
                total = stream.n_rows * len(batch[0]) * len(stream.weights) + extra
                if total > MAX_ROOT_ROWS:
                    raise ValueError(
                        f"curvature='exact' decomposes the Gram matrix of rows x Fisher columns x checkpoints, "
                        f"{stream.n_rows} x {len(batch[0])} x {len(stream.weights)}"
                        + (f", and {extra} parameters with decay in a metric," if extra else "")
                        + f" = {total}, and takes at most {MAX_ROOT_ROWS}: it is meant for small problems. Use "
                        "curvature=ExactGaussNewton(max_rows=4096) or 'ekfac'"
                    )
                blocks = [torch.cat([g.matrix().flatten(1) for g in columns]) for columns in batch]
                for block, flat in zip(stream.blocks, blocks):
                    require_finite(flat, "a gradient", block, stream.checkpoints[c])
                rows.append(torch.cat(blocks, dim=1).double() * (float(weight) / stream.n_rows) ** 0.5)
        if penalty:
            diagonals = [
                torch.zeros(block.shape) if d is None else d for block, d in zip(stream.blocks, stream.metric.penalty)
            ]
            rows.append(torch.cat([d.to(rows[0]).flatten() for d in diagonals]).sqrt().diag())
        root = torch.cat(rows) if rows else torch.zeros(0, n_parameters, dtype=torch.float64)
        return GramCurvature(root, [block.shape for block in stream.blocks], stream.dtype)
