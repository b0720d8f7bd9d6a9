"""Weights of rows where a loss divides by a weight of the batch, in units of their mean over the training rows."""

from __future__ import annotations

import torch

from ..utils._compat_torch import version_of
from ..utils._config import bytes_for
from ..utils._tree import map_tensors
from ._predictive import Categorical
from ._weighted_mean import FAILURES, TOLERANCE, joined, kept, shares, stand_in, weights_beside

COUPLED = (
    "the criterion couples rows: the loss of a row changes with the other rows of its batch, and not by a weight of "
    "the rows that it divides by; train with a criterion that is a mean, a weighted mean or a sum over rows"
)


class RowWeights:
    """The weights ``W_n`` of a loss ``sum W_n l_n / sum W``: ``W_n / mean W`` times ``l_n`` is what a row brings.

    Weights are seen beside a reference row of the training, as shares of a common batch. Where they count tokens, a
    row alone tells its weight (one over the scale of its loss's Hessian), and rows of any length can be weighed.

    Attributes
    ----------
    mean : float or None
        The mean weight of the training rows, in units of the reference row's weight or of a token.
    """

    def __init__(self):
        self.mean, self._counted, self._reference = None, None, None
        self._last = None

    def calibrate(self, batch_loss, predictive, rows, indices, forward, probe):
        """Weigh all training rows.

        Parameters
        ----------
        batch_loss : BatchLoss
        predictive : Predictive or None
            What the row losses were recognised as.
        rows, indices : Rows, ndarray of int
        forward : callable
            From a batch to the outputs.
        probe : (indices, x, y, output)
            Some rows that have a loss.

        Returns
        -------
        uneven : bool or None
            Whether the weights differ. None where rows cannot be weighed: the loss takes no made-up outputs.

        Raises
        ------
        ValueError
            Where the loss turns out to couple rows.
        """
        where, x, y, output = probe
        share = shares(batch_loss, stand_in(output), y, x)
        if share is None or not share.any():
            return None
        best = int(share.argmax())
        beside, form = [], _form(x, y)
        counts = [] if _counts_tokens(predictive, output) else None
        size = max(2, min(512, bytes_for("weighed_outputs") // 4 // max(1, output.shape[1:].numel())))
        for start in range(0, len(indices), size):
            part = [*indices[start : start + size].tolist(), int(where[best])]
            px, py = rows.batch(part)
            if _form(px, py) == form:
                made = output[:1].expand(len(part), *output.shape[1:])
            else:  # rows collated to another length: only the network knows the shape of its outputs
                with torch.no_grad():
                    made = forward(px)
            weights = weights_beside(batch_loss, made, py, px)
            if weights is None:  # a few rows weighed the same by chance
                raise ValueError(COUPLED)
            beside.append(weights)
            if counts is not None:
                count = _count_tokens(batch_loss, predictive, made, py, px)
                counts = None if count is None else [*counts, count[:-1] / count[-1]]
                unit = None if count is None else count[-1]
        weights = torch.cat(beside)
        scale = TOLERANCE.get(output.dtype, 2e-2) * 10 * float(weights.max())
        self.mean, self._reference = float(weights.mean()), (kept(_row(y, best)), kept(_row(x, best)), output.shape[1:])
        if counts is not None and float((torch.cat(counts) - weights).abs().max()) <= scale:
            self._counted, self.mean = predictive, self.mean * float(unit)
        return float(weights.max() - weights.min()) > scale

    def __call__(self, batch_loss, output, y, x):
        """``W_n / mean W`` of the rows of a batch: (B,) of float64."""
        if self.mean is None:
            raise ValueError(
                "the loss divides by a weight of the batch (tokens counted, samples weighed), whose mean the training "
                "rows give: call calibrate with them first"
            )
        version = version_of(y)
        if self._last is not None and self._last[:3] == (id(y), id(x), version) and self._last[3] == output.shape:
            return self._last[-1]  # the same batch, at the weights of the next checkpoint
        weights = self._weigh(batch_loss, output.detach(), y, x) / self.mean
        # The batch is kept along, so that its identity stays its own.
        self._last = None if version is None else (id(y), id(x), version, output.shape, (y, x), weights)
        return weights

    def _weigh(self, batch_loss, output, y, x):
        if self._counted is not None:
            weights = _count_tokens(batch_loss, self._counted, output, y, x)
        else:
            y_one, x_one, shape = self._reference
            x_one = None if x is None else x_one
            if _form(x, y) != _form(x_one, y_one) or output.shape[1:] != shape:
                raise ValueError(
                    "the criterion weighs rows by more than a count of tokens, so that rows have to be compared, which "
                    f"takes one shape of all: expected outputs of shape {tuple(shape)} per row, got "
                    f"{tuple(output.shape[1:])}. Pad all rows to one length"
                )
            made = output[:1].expand(len(output) + 1, *shape)
            weights = weights_beside(batch_loss, made, joined(y, y_one), joined(x, x_one))
        if weights is None:
            raise ValueError(COUPLED)
        return weights

    def __getstate__(self):
        return {**vars(self), "_last": None}


def _count_tokens(batch_loss, predictive, output, y, x):
    """How many positions of every row count: (B,) of float64; None where the loss cannot be asked.

    One over the scale of the row's own loss at a position that counts.
    """
    try:
        scale = predictive.scale(lambda o: batch_loss.rows_alone(o, y, x), stand_in(output))
    except FAILURES:
        return None
    scale = scale.reshape(len(output), -1).double()
    most = torch.nan_to_num(scale).amax(1)  # 0 / 0 where no position counts
    tiny = TOLERANCE.get(output.dtype, 2e-2) / max(1, scale.shape[1])
    return torch.where(most > tiny, 1 / most.where(most > tiny, 1), 0)


def _counts_tokens(predictive, output):
    return isinstance(predictive, Categorical) and output.ndim > 2


def _form(x, y):
    return map_tensors(lambda tensor: tuple(tensor.shape[1:]), [x, y])


def _row(tree, n):
    return map_tensors(lambda tensor: tensor[n : n + 1], tree)
