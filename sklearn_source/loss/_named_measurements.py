"""The measurements that have names, and the one that a name or a callable stands for."""

from __future__ import annotations

import math
from numbers import Integral

import torch

from ..utils._warnings import warn
from ._measurement import Measurement
from ._predictive import Bernoulli
from ._targets import holds


class Prediction(Measurement):
    """The output itself, or one element of it; of a loss that draws its mean over the draws."""

    name = "prediction"

    def __init__(self, network, output=None):
        super().__init__(network)
        if output is not None:
            self.output = output if isinstance(output, tuple) else (output,)
            if not all(isinstance(i, Integral) and not isinstance(i, bool) for i in self.output):
                raise ValueError(f"expected output to be an integer or a tuple of integers, got {output!r}")

    def target(self, output, y=None, x=None):
        return y

    def __call__(self, output, target=None, x=None):
        output, draws = self._network.first(output), self._network.draws_examples
        if draws:
            output = output.mean(self._network.draws_axis)
        rows = output.shape[1:]
        if self.output is None:
            if self._network.is_sequence and not draws:
                raise ValueError(
                    f'"prediction" reads one number, but the outputs, of shape {tuple(rows)} per row, are classes at '
                    'several positions: use "log_odds", "neg_loss" or a callable f(output, target) -> (batch,)'
                )
            if rows.numel() != 1:
                raise ValueError(
                    f"the network has outputs of shape {tuple(rows)} per row: name the one to attribute, output=0 say"
                )
            return output.reshape(len(output))
        if len(self.output) != len(rows) or any(not 0 <= i < n for i, n in zip(self.output, rows)):
            index = self.output[0] if len(self.output) == 1 else self.output
            raise ValueError(f"expected output= to index a row's outputs of shape {tuple(rows)}, got {index}")
        position = (slice(None), *self.output)
        return output[position]


class NegLoss(Measurement):
    """Minus the criterion on the row alone."""

    name = "neg_loss"

    def __init__(self, network):
        super().__init__(network)
        takes_none = network.row_loss.batch_loss.takes_no_targets
        self.needs_y = not takes_none and (network.is_sequence or not network.is_classification)

    def check(self, output, y, x):
        self(output, y, x)  # queries without targets are met by what _predicted says

    def __call__(self, output, target=None, x=None):
        return -self._network.row_loss.own_losses(output, target, x)


class CustomMeasurement(Measurement):
    """A callable ``f(output, target) -> (B,)``."""

    def __init__(self, function, network):
        super().__init__(network)
        self._function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.needs_y = bool(getattr(function, "needs_y", False))
        self.draws = getattr(function, "draws", None)

    def __call__(self, output, target=None, x=None):
        value = self._function(self._network.first(output), target)
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != (len(output),):
            came = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"expected measurement {self.name!r} to return a tensor of shape (batch,), got {came}")
        if not value.is_floating_point():
            raise ValueError(f"expected measurement {self.name!r} to return floating-point numbers, got {value.dtype}")
        return value


class LogOdds(Measurement):
    """Log-odds of the own class against all others, a mean over the positions that count."""

    name = "log_odds"

    def __init__(self, network):
        super().__init__(network)
        if not network.is_classification:
            raise ValueError(
                'measurement="log_odds" needs a classifier, but this network is a regressor: use "prediction"'
            )
        if network.predictive.name == "unknown":
            raise ValueError(
                'measurement="log_odds" needs a criterion that says what the outputs are (CrossEntropyLoss, NLLLoss, '
                "BCEWithLogitsLoss, BCELoss); for another one pass a callable f(output, target) -> (batch,)"
            )

    def _given(self, output, y, x):
        first = self._network.first(output)
        if first.ndim > 2 and not isinstance(self._network.predictive, Bernoulli):
            return self._labels_of_tokens(output, y, x)
        self._check_labels(first, y)
        return y

    def _labels_of_tokens(self, output, y, x):
        labels = self._network.row_loss.labels(output, y, x)
        empty = torch.nonzero((labels < 0).flatten(1).all(1)).flatten()
        if len(empty):
            raise ValueError(
                f"log_odds is a mean over the tokens that count, but in row {int(empty[0])} of a batch none does: "
                "leave out sequences whose targets are all ignored"
            )
        return labels

    def _check_labels(self, output, y):
        binary = isinstance(self._network.predictive, Bernoulli)
        if y.is_floating_point() and not binary:
            raise ValueError(
                "log_odds needs one integer class label per row, got floating-point targets: leave y out to take the "
                "predicted class, or pass a callable measurement"
            )
        n_classes = 2 if binary else output.shape[1]
        no = self._network.predictive.no if binary else 0
        if y.numel() != len(output):
            raise ValueError(f"log_odds needs one label per row: {len(output)} rows, y of shape {tuple(y.shape)}")
        if y.numel() and (y.min() < no or y.max() >= n_classes or (y.is_floating_point() and (y != y.round()).any())):
            raise ValueError(
                f"expected labels in {no:g}..{n_classes - 1}, got {float(y.min()):g} to {float(y.max()):g}: encode "
                "them as in training"
            )

    def __call__(self, output, target=None, x=None):
        output, predictive = self._network.first(output), self._network.predictive
        if isinstance(predictive, Bernoulli):
            if output.shape[1:].numel() != 1:
                raise ValueError(
                    f"log_odds needs one output per row, got shape {tuple(output.shape[1:])} (multi-label): pass a "
                    "callable measurement"
                )
            odds = predictive.log_odds(output.reshape(len(output)), target.reshape(len(output)))
            return self._said_where_cut_off(odds)
        predictive = self._categorical
        if output.ndim < 2 or output.shape[predictive.axis] < 2:
            raise ValueError(
                f"log_odds needs outputs of shape (batch, n_classes >= 2), got {tuple(output.shape)}: pass a callable "
                "measurement"
            )
        target = target.reshape(output.select(predictive.axis, 0).shape)
        counts = (target >= 0).reshape(len(output), -1)
        odds = self._said_where_cut_off(predictive.log_odds(output, target.clamp(min=0)))
        odds = odds.reshape(counts.shape).where(counts, 0)
        return odds.sum(1) / counts.sum(1)

    def _said_where_cut_off(self, odds):
        """The same log-odds, with a warning where probabilities of 0 and 1 left no gradient."""
        most = -0.999 * math.log(torch.finfo(odds.dtype).tiny)
        if self._network.predictive.of_probabilities and holds((odds.abs() >= most).any()):
            warn(
                f"the network is so sure of {int((odds.abs() >= most).sum())} of {odds.numel()} log-odds that its "
                f"probabilities are 0 and 1 in {odds.dtype}: these have no gradient, and give scores of 0. Let the "
                "module return logits (CrossEntropyLoss, BCEWithLogitsLoss), or train in float64"
            )
        return odds


_MEASUREMENTS = {"log_odds": LogOdds, "prediction": Prediction, "neg_loss": NegLoss}


def resolve_measurement(measurement, network, output=None):
    """The measurement that a name (or a callable) stands for on a network.

    Parameters
    ----------
    measurement : {"auto", "log_odds", "prediction", "neg_loss"} or callable
        ``"auto"`` is ``"log_odds"`` for classification, ``"neg_loss"`` for a net trained without targets (an
        autoencoder), else ``"prediction"``. The log-odds of a sequence are the mean
        over its tokens (those that the loss counts, where targets are given) of the log-odds of each. ``"neg_loss"`` is
        minus the criterion on the row alone, as it is called: of a sequence the mean over its own tokens, or their sum
        for ``reduction="sum"``. A callable is ``f(output, target) -> (B,)``, torch, differentiable, every row by
        itself; an attribute ``needs_y = True`` on it says that it needs the query's targets.
    network : Network
    output : int or tuple of int, optional
        For ``"prediction"``: which element of a row's output, where it has several.

    Returns
    -------
    Measurement

    Raises
    ------
    ValueError
        An unknown name, one that this network cannot have, or ``output`` with another measurement.
    """
    if isinstance(measurement, Measurement):
        return measurement
    if isinstance(measurement, str) and measurement == "auto":
        measurement = "log_odds" if network.is_classification else "prediction"
        batch_loss = network.row_loss.batch_loss
        of_loss = batch_loss.takes_no_targets or batch_loss.draws_examples
        if of_loss and output is None and measurement == "prediction":
            measurement = "neg_loss"
    cls = _MEASUREMENTS.get(measurement) if isinstance(measurement, str) else None
    if cls is None and not callable(measurement):
        names = ["auto", *_MEASUREMENTS]
        raise ValueError(f"expected measurement to be one of {names} or a callable, got {measurement!r}")
    if cls is Prediction:
        return Prediction(network, output)
    resolved = CustomMeasurement(measurement, network) if cls is None else cls(network)
    if output is not None:
        raise ValueError(f'output={output!r} chooses what "prediction" reads; it has no meaning for {measurement!r}')
    return resolved
