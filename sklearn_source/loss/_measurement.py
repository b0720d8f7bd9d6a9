"""What is attributed: one number per query row, computed from the network's output."""

from __future__ import annotations

import torch

from ._predictive import Bernoulli, Categorical
from ._targets import holds


class Measurement:
    """One number per row from the network's output; more is better, or plainly the output.

    Parameters
    ----------
    network : Network

    Attributes
    ----------
    name : str
    needs_y : bool
        Whether it cannot be had without the query's targets.
    output : tuple of int or None
        Which element of a row's output is read, where one was given.
    draws : callable or None
        Where the loss draws: from the net to the draws that the measurement is of. None: those of the net.
    """

    needs_y = False
    output = None
    draws = None

    def __init__(self, network):
        self._network = network

    def target(self, output, y=None, x=None):
        """The targets a call needs: ``y`` where given, else the predicted classes of a classifier, else None.

        For the log-odds of sequences these are labels at every position, -1 where none counts.

        Parameters
        ----------
        output : Tensor (B, ...)
        y : optional
        x : optional
            The batch, for a ``get_loss`` that reads ``X``.

        Raises
        ------
        ValueError
            When the measurement needs targets and there are none, or labels do not fit the outputs.
        """
        if y is not None:
            return self._given(output, y, x)
        if self.needs_y:
            raise ValueError(
                f"measurement {self.name!r} needs the targets of the query rows, but y is None: pass y, or use "
                f'measurement="{"log_odds" if self._network.is_sequence else "prediction"}"'
            )
        return self._predicted(self._network.first(output.detach())) if self._network.is_classification else None

    def __call__(self, output, target=None, x=None):
        """Measure a batch.

        Parameters
        ----------
        output : Tensor (B, ...)
        target : Tensor, optional
            From :meth:`target`.
        x : optional
            The batch, for a ``get_loss`` that reads ``X``.

        Returns
        -------
        Tensor (B,)
            Differentiable in ``output``.
        """
        raise NotImplementedError

    def check(self, output, y, x):
        """Measure training rows once: what cannot be measured is said before the work."""
        self(output, self.target(output, y if self.needs_y else None, x), x)

    def _given(self, output, y, x):
        """The targets of a call, from those of the query rows."""
        return y

    def _predicted(self, output):
        """The classes that a classifier predicts, as targets."""
        if isinstance(self._network.predictive, Bernoulli):
            return self._network.predictive.predicted(output, self._network.threshold)
        if output.ndim == 1 or output.shape[1] == 1:
            raise ValueError(
                f"measurement {self.name!r} without y needs a predicted class, which an output of shape "
                f"{tuple(output.shape)} does not tell: pass y"
            )
        return output.argmax(self._categorical.axis)

    @property
    def _categorical(self):
        """A classifier's distribution over classes: outputs under a criterion that says nothing of it are logits."""
        predictive = self._network.predictive
        return predictive if isinstance(predictive, Categorical) else Categorical()


def require_derivative(measure, values, output):
    """Refuse a measurement that has no gradient in the outputs, or is no number for outputs that are.

    Parameters
    ----------
    measure : Measurement
    values : Tensor (B,)
        What it gave, with gradients on.
    output : Tensor (B, ...)
        That they are asked for in.

    Raises
    ------
    ValueError
    """
    if not values.requires_grad:
        raise ValueError(
            f"expected measurement {measure.name!r} to be computed from the output by operations of torch that have a "
            "derivative, got numbers without one: leave out detach(), rounding, comparisons and NumPy"
        )
    if holds(values.isnan().any()) and holds(torch.isfinite(output).all()):
        raise ValueError(f"expected numbers of measurement {measure.name!r}, got NaN for outputs that are finite")
